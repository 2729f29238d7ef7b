"""Exploration: which actions are turned, with what probability, and what is left alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tests.support.scoring import CONTRACT, REQUEST, Bench, Publisher

from tailrace.contracts.language.load import load_contract
from tailrace.models.predictions import Predictions
from tailrace.scorer.steps.policy import Exploration, Policy

EXPLORE = "explore: {share: 20%, from: refuse, do: approve}\n"
REFUSED = REQUEST | {"debt_ratio": 3.0}


def bench(contract: str = CONTRACT + EXPLORE, role: Any = "champion", **state: Any) -> Bench:
    publisher = Publisher()
    scoring = Bench(publisher.logic(role), publisher)
    scoring.control(
        publisher.contract(contract),
        publisher.manifest(1),
        publisher.rollout(**{"champion": 1} | state),
    )
    return scoring


def test_a_share_of_would_be_refusals_is_let_through_and_says_with_what_probability() -> None:
    scoring = bench()
    events = scoring.events(
        scoring.requests(*[REFUSED] * 1000, *[REQUEST | {"income": 90_000.0}] * 50, REQUEST)
    )
    turned = [e for e in events[:1000] if e["action"] == "approve"]
    kept = [e for e in events[:1000] if e["action"] == "refuse"]
    assert len(turned) + len(kept) == 1000
    assert abs(len(turned) - 200) < 4 * math.sqrt(1000 * 0.2 * 0.8)
    # The rule is the one that matched.
    assert {(e["rule"], e["action_propensity"], e["arm_propensity"]) for e in turned} == {
        ("refuse-5", 0.2, 1.0)
    }
    assert {(e["rule"], e["action_propensity"]) for e in kept} == {("refuse-5", 0.8)}
    assert {(e["action"], e["action_propensity"]) for e in events[1000:]} == {
        ("approve", 1.0),
        ("refer", 1.0),
    }


def test_the_same_requests_are_turned_in_other_batches_and_by_the_shadow() -> None:
    def turned(scoring: Bench, size: int, topic: str = "credit.predictions") -> list[int]:
        events = []
        for start in range(0, 120, size):
            events += scoring.events(scoring.requests(*[REFUSED] * min(size, 120 - start)), topic)
        return [event["source"]["offset"] for event in events if event["action"] == "approve"]

    expected = turned(bench(), 120)
    assert 5 < len(expected) < 60
    assert turned(bench(), 7) == expected
    assert (
        turned(bench(role="shadow", champion=None, shadow=[1]), 50, "credit.shadow-predictions") == expected
    )


def test_partitions_are_turned_apart_from_each_other() -> None:
    exploration = Exploration(load_contract(CONTRACT + EXPLORE), Policy(load_contract(CONTRACT)).choices)
    outputs = Predictions(np.array([[0.1, 0.9]] * 400), np.full(400, 0.9), None, ("false", "true"))
    last = np.full(400, 4)
    one, other = (
        exploration.turn(last, outputs, "t", np.full(400, partition), np.arange(400)).choices
        for partition in (0, 1)
    )
    assert (one != other).any()
    mixed = exploration.turn(last, outputs, "t", np.arange(400) % 2, np.arange(400)).choices
    assert mixed.tolist() == np.where(np.arange(400) % 2, other, one).tolist()
    assert last.tolist() == [4] * 400, "what was given is left as it was"


def test_a_class_is_an_action_too() -> None:
    contract = """
model: credit
owner: {team: t}
features: {income: {type: number}, debt_ratio: {type: number}}
target: {name: y, type: boolean}
explore: {share: 30%, from: "true", do: "false"}
"""
    scoring = bench(contract)
    request = {"income": 0.0, "debt_ratio": 3.0}
    events = scoring.events(scoring.requests(*[request] * 300, *[request | {"income": 900_000.0}] * 20))
    assert {(e["predicted_class"], e["action"], e["action_propensity"]) for e in events[:300]} == {
        ("true", "true", 0.7),
        ("true", "false", 0.3),
    }
    assert {(e["action"], e["action_propensity"]) for e in events[300:]} == {("false", 1.0)}


def test_a_row_whose_action_a_rule_names_is_not_turned_for_its_class() -> None:
    contract = """
model: credit
owner: {team: t}
features: {income: {type: number}, debt_ratio: {type: number}}
target: {name: y, type: boolean}
policy: [{when: "debt_ratio > 5", do: person}, {when: "income < 0", do: "true"}, {when: "income < -9", do: "false"}]
explore: {share: 30%, from: "true", do: "false"}
"""
    scorer = bench(contract)
    events = scorer.events(scorer.requests(*[{"income": 0.0, "debt_ratio": 6.0}] * 100))
    assert {(e["predicted_class"], e["action"], e["action_propensity"]) for e in events} == {
        ("true", "person", 1.0)
    }


@pytest.mark.parametrize("explore", ["", "explore: {share: 50%, from: approve, do: approve}\n"])
def test_where_nothing_can_be_turned_every_action_is_certain(explore: str) -> None:
    plain, scoring = bench(CONTRACT), bench(CONTRACT + explore)
    requests = [REQUEST | {"debt_ratio": n / 10} for n in range(60)]
    events = [
        [(e["action"], e["action_propensity"]) for e in each.events(each.requests(*requests))]
        for each in (plain, scoring)
    ]
    assert events[0] == events[1]
    assert {propensity for _, propensity in events[0]} == {1.0}


def test_while_it_is_off_nothing_is_turned() -> None:
    contract = CONTRACT + EXPLORE + "guardrails: {fallback: [{constant: 0.9}]}\n"
    scoring = bench(contract, off=True)
    events = scoring.events(scoring.requests(*[REFUSED] * 50))
    assert {(e["action"], e["action_propensity"], e["served_by"]) for e in events} == {
        ("refuse", 1.0, "constant")
    }
