"""Versions that kill the scorer's process: who is to blame, who answers, and how long that lasts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.dying import Dies, DyingScorer
from tests.support.scoring import CONTRACT, REQUEST, Publisher, serving

from tailrace.models.columns import Array, Columns
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.scorer.serving.handover import Handover
from tailrace.scorer.serving.quarantine import Quarantined, VersionQuarantine
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.processor import NamesInFlight, Suspect
from tailrace.streaming.records import Record, RecordRef, TopicPartition
from tailrace.testing.formula_model import Formula

CANARY = {"version": 2, "share": 0.5, "salt": "pepper", "step": 1}
MANY: list[dict[str, Any]] = [{"income": 1_000.0 * at} for at in range(1, 21)]
KILLER = {"debt_ratio": 7.0}


def on_killer(ratios: Array) -> Array:
    return ratios == 7.0


class Fails(Formula):
    """Raises on every row."""

    def run(self, columns: Columns, rows: int) -> Array:
        raise RuntimeError("broken build")


def answers(scorer: DyingScorer) -> set[tuple[int, str, str | None]]:
    return {(e["version"], e["served_by"], e["served_cause"]) for e in scorer.events()}


def test_a_champion_that_kills_two_processes_is_quarantined_and_the_one_before_it_answers() -> None:
    scorer = DyingScorer(Formula(1), Dies(2))
    scorer.rollout(champion=1)
    scorer.rollout(champion=2, previous=1)
    scorer.ask(*MANY)
    assert scorer.run() == 2
    events = scorer.events()
    assert [e["request_id"] for e in events] == [f"r{at}" for at in range(1, 21)]
    for event, changes in zip(events, MANY, strict=True):
        assert (event["version"], event["role"], event["rollout_revision"]) == (2, "champion", 2)
        assert (event["served_by"], event["served_cause"]) == ("previous", "quarantined")
        assert event["score"] == pytest.approx(Formula(1).score(REQUEST | changes), rel=1e-12)
        assert event["prediction_id"] == prediction_id("champion", RecordRef(**event["source"]), 2)
        assert [finding["guard"] for finding in event["guardrails"]] == ["quarantined", "previous"]
    (alert,) = scorer.alerts()
    assert (alert["kind"], alert["severity"], alert["state"]) == ("version-quarantined", "severe", "raised")
    assert (alert["model"], alert["version"], alert["service"]) == ("credit", 2, "scorer")
    assert alert["detail"]["revision"] == "2"
    assert scorer.dead() == 0


def test_the_second_process_goes_where_the_first_has_died_and_not_to_another_partition_before() -> None:
    scorer = DyingScorer(Formula(1), Dies(2))
    scorer.rollout(champion=1)
    scorer.rollout(champion=2, previous=1)
    scorer.ask({})  # of partition 1
    with pytest.raises(AssertionError, match="not done after 1 death"):
        scorer.run(most=1)
    scorer.ask(*[{}] * 120)  # a batch takes 50, those of partition 0 first
    assert scorer.run() == 1
    assert answers(scorer) == {(2, "previous", "quarantined")}
    assert len(scorer.events()) == 121


def test_it_lasts_beyond_restarts_until_the_version_is_put_in_its_place_anew() -> None:
    dies = Dies(2)
    scorer = DyingScorer(Formula(1), dies, Formula(3))
    scorer.rollout(champion=1)
    scorer.rollout(champion=2, previous=1, frozen=True)
    scorer.ask(*MANY)
    scorer.run()
    dies.on = False
    scorer.rollout(champion=2, previous=1, candidates=[3], frozen=True)  # another version's step
    for _ in range(2):
        scorer.ask(*MANY)
        assert scorer.run() == 0
        scorer.restart()
    assert answers(scorer) == {(2, "previous", "quarantined")}
    assert len(scorer.alerts()) == 1
    scorer.rollout(champion=1)
    scorer.rollout(champion=2, previous=1)
    scorer.ask({})
    assert scorer.run() == 0
    assert (scorer.events()[-1]["version"], scorer.events()[-1]["served_by"]) == (2, "model")


def test_it_stands_in_for_nobody_once_another_version_is_champion() -> None:
    dies, fails = Dies(2), Fails(3)
    scorer = DyingScorer(
        Formula(1), dies, fails, guardrails="{fallback: [{previous: true}, {constant: 0.4}]}"
    )
    scorer.rollout(champion=2, previous=1)
    scorer.ask(*MANY)
    assert scorer.run() == 2
    scorer.rollout(champion=3, previous=2)
    scorer.ask(*MANY)
    assert scorer.run() == 0
    assert answers(scorer) == {(2, "previous", "quarantined"), (3, "constant", "model")}


def test_off_and_on_run_the_only_version_again() -> None:
    dies = Dies(1)
    scorer = DyingScorer(dies, guardrails="{fallback: [{constant: 0.4}]}")
    scorer.rollout(champion=1)
    scorer.ask(*MANY)
    assert scorer.run() == 2
    assert answers(scorer) == {(1, "constant", "quarantined")}
    dies.on = False
    scorer.rollout(champion=1, off=True)
    scorer.rollout(champion=1)
    scorer.ask({})
    scorer.run()
    assert scorer.events()[-1]["served_by"] == "model"


def test_where_the_contract_has_a_chain_it_decides_who_answers() -> None:
    scorer = DyingScorer(Formula(1), Dies(2), guardrails="{fallback: [{constant: 0.4}]}")
    scorer.rollout(champion=2, previous=1)
    scorer.ask(*MANY)
    assert scorer.run() == 2
    assert answers(scorer) == {(2, "constant", "quarantined")}


@pytest.mark.parametrize("guardrails", ["{}", "{fallback: [{previous: true}]}"])
def test_a_row_that_kills_whatever_runs_goes_alone_and_the_versions_go_on(guardrails: str) -> None:
    scorer = DyingScorer(Dies(1, on_killer), Dies(2, on_killer), guardrails=guardrails)
    scorer.rollout(champion=2, previous=1)
    scorer.ask(*MANY, KILLER, *MANY)
    assert scorer.run() == 5  # two with version 2, one without it, two with the row alone
    assert scorer.dead() == 1
    assert scorer.alerts() == []  # but for the loop's own, see runtime/service.py
    assert len(scorer.events()) == 40
    scorer.ask({})
    assert scorer.run() == 0
    assert scorer.events()[-1]["served_by"] == "model"


def test_a_row_that_kills_the_newer_version_only_is_that_version_s_fault() -> None:
    scorer = DyingScorer(Formula(1), Dies(2, on_killer))
    scorer.rollout(champion=2, previous=1)
    scorer.ask(*MANY)
    assert scorer.run() == 0
    scorer.ask(*MANY, KILLER, *MANY)
    # The version had answered: what the first process died with was not announced.
    assert scorer.run() == 3
    assert scorer.dead() == 0
    assert len(scorer.events()) == 61
    assert scorer.events()[-1]["served_by"] == "previous"
    assert [alert["version"] for alert in scorer.alerts()] == [2]


def test_a_version_taken_up_later_is_announced_by_a_process_that_has_answered_long() -> None:
    scorer = DyingScorer(Formula(1), Dies(2))
    scorer.rollout(champion=1)
    scorer.ask(*MANY)
    assert scorer.run() == 0
    scorer.rollout(champion=2, previous=1)
    scorer.ask(*MANY)
    assert scorer.run() == 2
    assert [alert["version"] for alert in scorer.alerts()] == [2]


@pytest.mark.parametrize("dying", [1, 2])
def test_of_champion_and_canary_the_one_to_blame_is_found(dying: int) -> None:
    runners = [Dies(1) if dying == 1 else Formula(1), Dies(2) if dying == 2 else Formula(2)]
    scorer = DyingScorer(*runners, guardrails="{fallback: [{constant: 0.4}]}")
    scorer.rollout(champion=1)
    scorer.rollout(champion=1, canary=CANARY, shadow=[2])
    scorer.ask(*MANY)
    assert scorer.run() == (2 if dying == 2 else 3)  # the newest is suspected first
    assert [alert["version"] for alert in scorer.alerts()] == [dying]
    scorer.ask(*MANY)
    assert scorer.run() == 0
    last = scorer.events()[-20:]
    assert {e["version"] for e in last} == {1, 2}
    for event in last:
        assert event["served_by"] == ("constant" if event["version"] == dying else "model")
        assert event["role"] == ("champion" if event["version"] == 1 else "canary")


def test_the_champion_answers_in_the_place_of_a_canary_that_kills() -> None:
    scorer = DyingScorer(Formula(1), Dies(2))
    scorer.rollout(champion=1, canary=CANARY, shadow=[2])
    scorer.ask(*MANY)
    scorer.run()
    assert answers(scorer) == {(1, "model", None), (2, "previous", "quarantined")}
    canary = next(e for e in scorer.events() if e["version"] == 2)
    assert canary["arm_propensity"] == 0.5
    assert canary["guardrails"][1]["detail"].startswith("version 1, ")


def test_without_anybody_else_to_answer_each_row_that_kills_goes_alone() -> None:
    scorer = DyingScorer(Dies(1, on_killer))
    scorer.rollout(champion=1)
    scorer.ask(*MANY, KILLER, *MANY)
    scorer.run()
    assert (scorer.dead(), len(scorer.events())) == (1, 40)
    assert answers(scorer) == {(1, "model", None)}
    assert scorer.alerts() == []


def test_a_shadow_that_kills_is_left_out_and_the_others_go_on() -> None:
    scorer = DyingScorer(Formula(1), Formula(2), Dies(3), role="shadow")
    scorer.rollout(champion=1, shadow=[2, 3])
    scorer.ask(*MANY)
    assert scorer.run() == 2
    assert {e["version"] for e in scorer.events()} == {2}
    assert len(scorer.events()) == 20
    (alert,) = scorer.alerts()
    assert (alert["kind"], alert["version"], alert["service"]) == ("version-quarantined", 3, "shadow-scorer")


ARMS = {
    "assign": "fixed",
    "share": 1.0,
    "salt": "pepper",
    "arms": [
        {"arm": "a", "version": 2, "probability": 0.5},
        {"arm": "b", "version": 3, "probability": 0.5},
    ],
}


@pytest.mark.parametrize(("dying", "instead"), [(2, 1), (3, 2)])
def test_in_an_experiment_the_champion_stands_in_for_an_arm_and_the_previous_one_for_the_champion(
    dying: int, instead: int
) -> None:
    scorer = DyingScorer(Formula(1), *[(Dies if v == dying else Formula)(v) for v in (2, 3)])
    scorer.rollout(champion=2, previous=1, experiment=ARMS)
    scorer.ask(*MANY)
    assert scorer.run() == (2 if dying == 3 else 3)
    assert [alert["version"] for alert in scorer.alerts()] == [dying]
    for event in scorer.events():
        assert event["role"] == "arm"
        if event["version"] == dying:
            assert (event["served_by"], event["served_cause"]) == ("previous", "quarantined")
            assert event["guardrails"][1]["detail"].startswith(f"version {instead}, ")
    assert {e["version"] for e in scorer.events()} == {2, 3}


def test_an_instance_that_has_answered_long_takes_a_quarantine_over_with_a_partition() -> None:
    bench = serving(champion=1)
    bench.control(bench.publisher.manifest(2), bench.publisher.rollout(champion=2, previous=1))
    assert [event["served_by"] for event in bench.events(bench.requests(REQUEST))] == ["model"]
    left = Handover(quarantined=[Quarantined("credit", 2, 2)]).to_metadata()
    bench.logic.assigned({TopicPartition("credit.requests", 1): Committed(0, left)})
    (event,) = bench.events(bench.requests(REQUEST))
    assert (event["version"], event["served_by"], event["served_cause"]) == (2, "previous", "quarantined")


def test_what_kills_again_after_it_was_put_in_its_place_anew_is_quarantined_again() -> None:
    publisher, rollouts = Publisher(), Rollouts()
    for offset, champion in enumerate((1, 2, 1, 2)):
        step = publisher.rollout(champion=champion)
        assert rollouts.apply(publisher.control.decode("Rollout", step.value), offset)
    quarantine = VersionQuarantine("champion", rollouts)
    quarantine.add([Quarantined("credit", 2, 2)])
    quarantine.add([Quarantined("credit", 2, 4)])  # by the last owner of another partition
    quarantine.add([Quarantined("credit", 2, 2)])  # an older one says nothing new
    assert quarantine.holds("credit/2")
    assert quarantine.all() == [Quarantined("credit", 2, 4)]
    before = VersionQuarantine("champion", rollouts)
    before.add([Quarantined("credit", 2, 2)])
    assert not before.holds("credit/2")


def test_nobody_is_to_blame_for_a_record_that_still_waits() -> None:
    bench = serving(champion=1)
    bench.control(bench.publisher.manifest(2), bench.publisher.rollout(champion=2, previous=1))
    place = TopicPartition("credit.requests", 1)
    bench.logic.assigned({place: Committed(0, Handover(rollouts=3).to_metadata())})
    asked = bench.message(Record(place.topic, bench.publisher.request_value(REQUEST), partition=1))
    assert isinstance(bench.logic, NamesInFlight)
    for waits in (True, False):
        bench.logic.in_flight({place.topic}, {place: Suspect("credit/2", until=0)})
        output = bench.process([asked])
        assert output.paused.keys() == ({place} if waits else set())
        alerts = [(alert["kind"], alert["version"]) for alert in bench.alerts(output)]
        assert alerts == ([] if waits else [("version-quarantined", 2)])
        bench.control(bench.publisher.rollout(champion=2, previous=1, candidates=[3]))


def test_a_new_contract_changes_what_can_be_done_without() -> None:
    bench = serving(champion=1)
    assert isinstance(bench.logic, NamesInFlight)
    assert bench.logic.in_flight({"credit.requests"}, {}) == []
    bench.control(bench.publisher.contract(CONTRACT + "guardrails: {fallback: [{constant: 0.4}]}\n"))
    assert bench.logic.in_flight({"credit.requests"}, {}) == ["credit/1"]
