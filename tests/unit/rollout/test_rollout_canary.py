"""A canary's way: its steps by the contract, and back on what reports and alerts say."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.reports import DAY, report
from tests.support.scoring import CONTRACT
from tests.unit.rollout.test_rollout_logic import BETTER, DOWN, WORSE, Desk, desk

from tailrace.models.rollout_state.fold import Rollouts
from tailrace.rollout.paired_reports import PairedReports

CANARY = CONTRACT + "rollout: {canary: {steps: [5%, 50%], outcomes: 100}}\n"


def own(day: int, labelled: int = 100, version: int = 2, **changes: Any) -> dict[str, Any]:
    """A report on a canary's own answers."""
    return report(version, None, day, gains=[0.0] * labelled, role="canary", **changes)


def begun(contract: str = CANARY, versions: int = 2, **options: Any) -> Desk:
    """Version 2 passed in shadow and answers the first share, from when day 2 was judged."""
    rollout = desk(versions, contract, **options)
    rollout.reports(report(day=0), report(day=1, gains=BETTER))
    return rollout


def now(rollout: Desk) -> tuple[Any, ...]:
    step = rollout.steps[-1]
    canary = step["canary"] or {}
    return (step["step"], step["champion"], *(canary.get(name) for name in ("version", "share", "step")))


def test_it_goes_up_step_by_step_and_becomes_champion() -> None:
    rollout = begun()
    assert now(rollout) == ("canary", 1, 2, 0.05, 1)
    salt = rollout.steps[-1]["canary"]["salt"]
    assert len(salt) == 16
    assert (rollout.steps[-1]["shadow"], rollout.steps[-1]["by"]) == ([2], "rollout")
    # Day 2 began when the step was taken: what was predicted then may be of before.
    rollout.reports(own(2, 500), report(day=2, gains=[0.0] * 50))
    assert len(rollout.steps) == 4
    rollout.reports(own(3, 60), own(4, 39), report(day=4))
    assert len(rollout.steps) == 4
    rollout.reports(own(4, 40, age=DAY))
    assert now(rollout) == ("canary", 1, 2, 0.5, 2)
    step = rollout.steps[-1]
    assert step["canary"]["salt"] == salt
    assert step["evidence"]["canary_outcomes"] == "100"
    assert step["evidence"]["share"] == "0.05"
    assert len(step["evidence"]["reports"].split()) == 2
    # What counted for the last step does not count for this one, whenever it comes.
    rollout.reports(own(4, 400, age=2 * DAY))
    assert len(rollout.steps) == 5
    rollout.reports(own(7, 100), own(8, 100))
    assert now(rollout) == ("promote", 2, None, None, None)
    assert (rollout.steps[-1]["previous"], rollout.steps[-1]["shadow"]) == (1, [1])


def test_what_is_not_mature_or_of_a_slice_counts_for_nothing() -> None:
    rollout = begun()
    rollout.reports(own(4, mature=False), own(4, segment="region=north"), own(4, version=7))
    assert len(rollout.steps) == 4


def test_one_that_turns_out_worse_goes_whatever_its_own_outcomes() -> None:
    rollout = begun()
    rollout.reports(report(day=4, gains=WORSE[:98]))
    assert len(rollout.steps) == 4
    output = rollout.reports(report(day=5, gains=WORSE[:4]))
    assert now(rollout) == ("reject", 1, None, None, None)
    assert (rollout.steps[-1]["rejected"], rollout.steps[-1]["shadow"]) == ([2], [])
    assert "worse than version 1" in rollout.steps[-1]["reason"]
    (alert,) = rollout.alerts(output)
    assert (alert["kind"], alert["version"], alert["severity"]) == ("rolled-back", 2, "warning")


def test_one_that_is_worse_on_a_slice_goes() -> None:
    gates = "gates: {not_worse_on: {slices: [region], metric: log_loss, tolerance: 0.01}}\n"
    rollout = begun(CANARY + gates)
    rollout.reports(
        report(day=4, gains=BETTER[:100]), report(day=4, gains=WORSE[:50], segment="region=north")
    )
    assert now(rollout)[:3] == ("reject", 1, None)
    assert "region=north" in rollout.steps[-1]["reason"]


def test_one_that_may_be_worse_by_chance_stays() -> None:
    gates = "gates: {not_worse_on: {slices: [region], metric: log_loss, tolerance: 0.01}}\n"
    rollout = begun(CANARY + gates)
    rollout.reports(report(day=4, gains=DOWN), report(day=4, gains=DOWN[:50], segment="region=north"))
    assert len(rollout.steps) == 4
    rollout.reports(own(5))
    assert now(rollout) == ("canary", 1, 2, 0.5, 2)


def test_what_was_found_before_it_answered_does_not_count_again() -> None:
    rollout = begun()
    rollout.reports(report(day=1, gains=WORSE, age=DAY))
    assert len(rollout.steps) == 4


def test_a_window_that_it_began_in_does_not_count_against_it() -> None:
    rollout = begun()  # at the end of day 1, which is where day 2 begins
    rollout.reports(report(day=2, gains=WORSE))
    half = {"window_start": 3 * DAY // 2, "window_end": 5 * DAY // 2}
    rollout.reports(report(gains=WORSE, **half), own(2, 500, **half))
    assert len(rollout.steps) == 4
    rollout.reports(report(day=3, gains=WORSE))
    assert now(rollout)[0] == "reject"


def test_a_severe_alert_about_it_takes_it_back_and_the_champion_goes_on() -> None:
    rollout = begun()
    rollout.alert(2, 1)
    assert len(rollout.steps) == 4, "about a window of before"
    rollout.alert(2, 3)
    assert now(rollout)[:3] == ("reject", 1, None)
    assert rollout.steps[-1]["evidence"]["kind"] == "quality-drop"
    other = begun()
    other.alert(2, None, kind="package-refused")
    assert now(other)[:3] == ("reject", 1, None)
    silent = begun(CANARY.replace("outcomes: 100}", "outcomes: 100}, back_if: {alert: none}"))
    silent.alert(2, 3)
    assert len(silent.steps) == 4


def test_others_wait_until_it_is_over() -> None:
    rollout = begun(versions=3)
    rollout.reports(report(3, day=0), report(3, day=2, gains=BETTER))
    assert now(rollout) == ("canary", 1, 2, 0.05, 1)
    rollout.happens(rollout.command("reject", 2))
    assert rollout.names()[-2:] == ["reject", "canary"]
    assert now(rollout) == ("canary", 1, 3, 0.05, 1)
    salts = {step["canary"]["salt"] for step in rollout.steps if step["canary"] is not None}
    assert len(salts) == 2


@pytest.mark.parametrize("kind", ["rollback", "reject"])
def test_a_person_takes_it_back(kind: str) -> None:
    rollout = begun()
    output = rollout.happens(rollout.command(kind, None if kind == "rollback" else 2))
    assert now(rollout) == ("reject", 1, None, None, None)
    assert (rollout.steps[-1]["by"], rollout.alerts(output)) == ("ada", [])
    assert rollout.reports(own(4), own(5)).records == []


def test_a_person_ends_it_by_a_promotion() -> None:
    rollout = begun()
    rollout.happens(rollout.command("promote", 2))
    assert now(rollout) == ("promote", 2, None, None, None)
    other = begun(versions=3)
    other.happens(other.command("promote", 3))
    assert other.names()[-2:] == ["promote", "retire"]
    assert now(other)[1:3] == (3, None)


def test_rollback_with_a_version_that_does_not_answer_is_refused() -> None:
    rollout = begun()
    (alert,) = rollout.alerts(rollout.happens(rollout.command("rollback", 2)))
    assert "leave the version out" in alert["summary"]


def test_while_frozen_it_stays_where_it_is_and_waits_at_its_end() -> None:
    rollout = begun()
    rollout.happens(rollout.command("freeze"))
    rollout.reports(own(4))
    rollout.reports(report(day=4, gains=WORSE))
    rollout.alert(2, 5)
    assert rollout.names()[4:] == ["freeze"]
    last = begun(CANARY.replace("5%, ", ""))
    last.happens(last.command("freeze"))
    last.reports(own(4))
    last.reports(own(5))
    assert last.names()[4:] == ["freeze", "wait"]
    output = last.happens(last.command("unfreeze"))
    assert last.names()[6:] == ["unfreeze", "promote"]
    assert [alert["state"] for alert in last.alerts(output)] == ["resolved"]


def test_one_that_passed_while_frozen_begins_when_it_is_not() -> None:
    rollout = desk(2, CANARY)
    rollout.happens(rollout.command("freeze"))
    rollout.reports(report(day=0), report(day=1, gains=BETTER))
    assert rollout.names()[3:] == ["freeze", "wait"]
    output = rollout.happens(rollout.command("unfreeze"))
    assert rollout.names()[5:] == ["unfreeze", "canary"]
    assert [alert["state"] for alert in rollout.alerts(output)] == ["resolved"]


def test_where_a_person_has_to_agree_it_steps_up_by_itself_and_waits_at_its_end() -> None:
    rollout = begun(CANARY + "approvals: {promote: {role: risk-officer}}\n")
    rollout.reports(own(3))
    rollout.reports(own(6))
    assert rollout.names()[3:] == ["canary", "canary", "wait"]
    assert rollout.steps[-1]["canary"]["version"] == 2
    # It still goes when it turns out worse.
    rollout.reports(report(day=7, gains=WORSE))
    assert now(rollout)[:3] == ("reject", 1, None)


def test_without_steps_in_the_contract_a_person_decides() -> None:
    rollout = begun()
    rollout.bench.control(rollout.publisher.contract(CONTRACT))
    rollout.reports(own(4), own(5), report(day=5, gains=WORSE))
    assert len(rollout.steps) == 4


def test_its_share_never_falls() -> None:
    rollout = begun(CANARY.replace("[5%, 50%]", "[40%, 50%]"))
    rollout.bench.control(rollout.publisher.contract(CANARY.replace("[5%, 50%]", "[5%, 10%]")))
    rollout.reports(own(4))
    assert now(rollout) == ("canary", 1, 2, 0.4, 2)


def test_a_champion_that_is_taken_back_leaves_it_as_it_is() -> None:
    rollout = desk(2, CANARY)
    rollout.happens(rollout.command("promote", 2), rollout.publisher.manifest(3))
    rollout.reports(report(3, 2, day=0), report(3, 2, day=1, gains=BETTER))
    assert now(rollout)[:3] == ("canary", 2, 3)
    rollout.alert(2, 3)
    assert now(rollout)[:3] == ("rollback", 1, 3)
    assert 3 in rollout.steps[-1]["shadow"]
    assert rollout.reports(own(4, version=3)).records != [], "it steps up beside the version that answers now"


def test_the_fold_of_what_is_needed_is_that_of_the_whole() -> None:
    reports = [
        report(day=0),
        own(1),
        report(day=1),
        own(1, 70, age=DAY),
        own(2),
        report(day=2),
        own(2, age=DAY),
    ]
    whole = PairedReports()
    for offset, each in enumerate(reports):
        whole.apply(each, offset)
        part = PairedReports()
        for later in range(whole.needs(), offset + 1):
            part.apply(reports[later], later)
        assert part == whole
    copied = whole.copy()
    copied.forget([2])
    assert (copied.answered, copied.windows) == ({}, {})
    assert [rollout.labelled for rollout in whole.of_step(2, None)] == [70, 100]


def test_the_fold_remembers_since_when() -> None:
    rollout = begun()
    rollout.reports(own(3), own(4))
    fold = Rollouts()
    for offset, step in enumerate(rollout.steps):
        assert fold.apply(step, offset)
    state = fold.state("credit")
    assert (state.canary_began, state.canary_since) == (2 * DAY, 4 * DAY)
    assert state.served == {1, 2}


RELIES = CANARY.replace("outcomes: 100}}", "outcomes: 100}, back_if: {fallback_share: 1%}}")


def test_a_canary_that_leaves_too_much_to_the_fallback_goes() -> None:
    rollout = begun(RELIES)
    # One of three, or a few more than 1 % of many, may be chance.
    rollout.reports(own(3, 0, predictions=3, fallbacks=1), own(4, 0, predictions=1000, fallbacks=15))
    rollout.reports(own(4, 0, predictions=1000, fallbacks=500, segment="region=north"))
    assert len(rollout.steps) == 4
    output = rollout.reports(own(5, 0, predictions=1000, fallbacks=20))
    assert now(rollout) == ("reject", 1, None, None, None)
    assert rollout.steps[-1]["evidence"]["fallbacks"] == "20"
    assert [alert["kind"] for alert in rollout.alerts(output)] == ["rolled-back"]
    other = begun()
    other.reports(own(5, 0, predictions=1000, fallbacks=900))
    assert len(other.steps) == 4


def test_a_champion_that_does_so_is_taken_back_once_and_not_for_what_was_before() -> None:
    rollout = begun(RELIES)
    rollout.happens(rollout.command("promote", 2))
    bad: dict[str, Any] = {"predictions": 1000, "fallbacks": 100}
    rollout.reports(report(2, None, day=1, **bad), report(1, None, day=4, **bad), own(4, 0, **bad))
    assert rollout.names()[4:] == ["promote"]
    rollout.reports(report(2, None, day=4, **bad))
    assert now(rollout)[:3] == ("rollback", 1, None)
    rollout.reports(report(2, None, day=5, **bad), report(1, None, day=5, **bad))
    assert rollout.names()[4:] == ["promote", "rollback"]


def test_the_window_that_begins_with_a_promotion_counts_and_the_one_before_it_does_not() -> None:
    rollout = begun(RELIES)
    rollout.happens(rollout.command("promote", 2))  # at the end of day 1
    bad: dict[str, Any] = {"predictions": 1000, "fallbacks": 100}
    rollout.reports(report(2, None, day=1, **bad))
    assert rollout.names()[4:] == ["promote"]
    rollout.reports(report(2, None, day=2, **bad))
    assert now(rollout)[:3] == ("rollback", 1, None)


def test_frozen_it_is_borne() -> None:
    rollout = begun(RELIES)
    rollout.happens(rollout.command("freeze"))
    rollout.reports(own(5, 0, predictions=1000, fallbacks=900))
    assert rollout.names()[4:] == ["freeze"]
