"""The fallback chain where a version fails, or gives what cannot be used: who answers, and what stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.scoring import CONTRACT, REQUEST, Bench, Later, Publisher

from tailrace.contracts.language.load import load_contract
from tailrace.models.columns import Array, Columns
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import RecordRef
from tailrace.testing.formula_model import Formula, formula_model

POISONED = REQUEST | {"debt_ratio": Formula.poison}


class Fails(Formula):
    """Raises on every row."""

    def run(self, columns: Columns, rows: int) -> Array:
        raise RuntimeError("broken build")


def bench(guardrails: str, role: Any = "champion", runner: Any = None, **changed: Any) -> Bench:
    """Version 2 in service, as ``runner``, and version 1, a formula, before it."""
    publisher = Publisher()
    made = Bench(publisher.logic(role), publisher)
    contract = publisher.contract(CONTRACT + f"guardrails: {guardrails}\n")
    model = publisher.contracts["credit"][-1]
    made.control(
        contract,
        publisher.manifest(1, formula_model(model, 1, **changed)),
        publisher.manifest(2, formula_model(model, 2, runner or Formula(2))),
        publisher.rollout(champion=1),
        publisher.rollout(champion=2, previous=1, shadow=[] if role == "champion" else [2]),
    )
    return made


def test_the_previous_version_answers_in_the_place_of_one_that_fails() -> None:
    made = bench("{fallback: [{previous: true}]}", runner=Fails(2))
    output = made.requests(REQUEST)
    (event,) = made.events(output)
    assert output.dead_letters == []
    assert (event["served_by"], event["served_cause"], event["role"]) == ("previous", "model", "champion")
    assert (event["version"], event["rollout_revision"]) == (2, 2)
    assert event["prediction_id"] == prediction_id("champion", RecordRef("credit.requests", 0, 0), 2)
    assert event["score"] == pytest.approx(Formula(1).score(REQUEST), rel=1e-12)
    assert event["action"] == "refer"
    model, previous = event["guardrails"]
    assert (model["guard"], "broken build" in model["detail"]) == ("model", True)
    digest = made.publisher.models["credit", 1].digest  # type: ignore[union-attr]
    assert previous == {"guard": "previous", "field": None, "detail": f"version 1, {digest}"}


def test_only_the_rows_that_fail_fall_back_and_all_stay_in_their_order() -> None:
    made = bench("{fallback: [{constant: 0.9}]}")
    requests = [
        (POISONED if at % 3 == 1 else REQUEST) | {"request_id": f"r{at}", "income": 1000.0 * at}
        for at in range(9)
    ]
    requests[0]["income"] = 1.0
    events = made.events(made.requests(*requests))
    assert [e["request_id"] for e in events] == [r["request_id"] for r in requests]
    for at, (event, request) in enumerate(zip(events, requests, strict=True)):
        expected = (
            ("constant", "model", 0.9, "refuse")
            if at % 3 == 1
            else ("model", None, pytest.approx(Formula(2).score(request), rel=1e-12), event["action"])
        )
        assert (event["served_by"], event["served_cause"], event["score"], event["action"]) == expected


def test_an_answer_out_of_bounds_is_replaced_and_the_policy_sees_the_one_in_its_place() -> None:
    made = bench("{score: {max: 0.7}, fallback: [{previous: true}, {constant: 0.2}]}")
    high, higher = made.events(made.requests(REQUEST | {"debt_ratio": 1.5}, REQUEST | {"debt_ratio": 3.0}))
    assert (high["served_by"], high["served_cause"], high["action"]) == ("previous", "score", "refuse")
    assert high["score"] == pytest.approx(Formula(1).score(REQUEST | {"debt_ratio": 1.5}), rel=1e-12)
    # For the previous version too it is out of bounds.
    assert (higher["served_by"], higher["score"], higher["action"]) == ("constant", 0.2, "approve")
    assert [f["guard"] for f in higher["guardrails"]] == ["score"]


def test_a_chain_that_says_nothing_ends_with_a_person() -> None:
    made = bench("{fallback: [{previous: true}, {rule: 'age / 100'}]}", runner=Fails(2))
    poisoned = POISONED | {"age": None}
    (event,) = made.events(made.requests(poisoned))
    assert (event["served_by"], event["served_cause"], event["action"]) == ("person", "model", "refer")
    assert event["score"] is None


def test_what_the_previous_version_fills_in_is_what_the_event_says() -> None:
    made = bench(
        "{fallback: [{previous: true}, {constant: 0.5}]}",
        runner=Fails(2),
        impute={"income": 12_345.0, "grade": "b"},
    )
    (event,) = made.events(made.requests(REQUEST | {"income": None}))
    assert [(r["field"], r["value"]) for r in event["replaced"]] == [("income", "12345.0")]
    made = bench("{fallback: [{constant: 0.5}]}", runner=Fails(2))
    (event,) = made.events(made.requests(REQUEST | {"income": None}))
    assert (event["served_by"], event["replaced"]) == ("constant", [])


def test_while_the_previous_version_is_not_open_the_next_step_answers() -> None:
    publisher, later = Publisher(), Later()
    made = Bench(publisher.logic(executor=later), publisher)
    contract = publisher.contract(CONTRACT + "guardrails: {fallback: [{previous: true}, {constant: 0.4}]}\n")
    model = publisher.contracts["credit"][-1]
    made.control(
        contract,
        publisher.manifest(1),
        publisher.manifest(2, formula_model(model, 2, Fails(2))),
        publisher.rollout(champion=2, previous=1),
    )
    later.run()
    (event,) = made.events(made.requests(REQUEST))  # takes up version 2, and has version 1 opened
    assert event["served_by"] == "constant"
    later.run()
    (event,) = made.events(made.requests(REQUEST))
    assert event["served_by"] == "previous"


def test_a_shadow_has_no_fallback() -> None:
    made = bench("{fallback: [{previous: true}, {constant: 0.5}]}", role="shadow", runner=Fails(2))
    output = made.requests(REQUEST)
    assert made.events(output, "credit.shadow-predictions") == []
    assert [alert["kind"] for alert in made.alerts(output)] == ["shadow-failed"]


def test_a_canary_falls_back_to_the_champion() -> None:
    publisher = Publisher()
    made = Bench(publisher.logic(), publisher)
    record = publisher.contract(CONTRACT + "guardrails: {fallback: [{previous: true}]}\n")
    model = publisher.contracts["credit"][-1]
    made.control(
        record,
        publisher.manifest(1, formula_model(model, 1)),
        publisher.manifest(2, formula_model(model, 2, Fails(2))),
        publisher.rollout(
            champion=1, shadow=[2], canary={"version": 2, "share": 0.5, "salt": "s", "step": 1}
        ),
    )
    requests = [REQUEST | {"loan_id": f"l{at}"} for at in range(40)]
    events = made.events(made.requests(*requests))
    by = {(e["role"], e["served_by"], e["version"]) for e in events}
    assert by == {("champion", "model", 1), ("canary", "previous", 2)}
    assert len({e["score"] for e in events}) == 1


def test_without_a_chain_a_row_that_fails_is_a_dead_letter_as_before() -> None:
    assert load_contract(CONTRACT).guardrails.fallback == []
    made = bench("{}", runner=Fails(2))
    output = made.requests(REQUEST)
    assert [letter.code for letter in output.dead_letters] == ["model-failed"]


def test_each_row_keeps_its_own_notes_whichever_step_answers_it() -> None:
    made = bench('{score: {max: 0.7}, fallback: [{rule: "CASE WHEN age > 50 THEN 0.1 END"}, {do: person}]}')
    ages, ratios = (60, 40, 61, 41, 62), (1.0, 1.1, 1.2, 1.3, 1.4)
    requests = [REQUEST | {"age": age, "debt_ratio": r} for age, r in zip(ages, ratios, strict=True)]
    events = made.events(made.requests(*requests))
    assert [event["served_by"] for event in events] == ["rule", "person", "rule", "person", "rule"]
    for event, request in zip(events, requests, strict=True):
        (finding,) = event["guardrails"]
        assert finding["detail"].startswith(f"{Formula(2).score(request):.9g} "), event["request_id"]


def test_a_constant_behind_a_rule_keeps_the_notes_of_its_own_rows() -> None:
    made = bench(
        '{score: {max: 0.7}, fallback: [{rule: "CASE WHEN age > 50 THEN 0.1 END"}, {constant: 0.2}]}'
    )
    requests = [REQUEST | {"age": age, "debt_ratio": age / 30} for age in (60, 41, 42)]
    events = made.events(made.requests(*requests))
    assert [event["score"] for event in events] == [0.1, 0.2, 0.2]
    details = [event["guardrails"][0]["detail"].split()[0] for event in events]
    assert details == [f"{Formula(2).score(request):.9g}" for request in requests]
