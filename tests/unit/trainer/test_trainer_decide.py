"""Single rules of what leads to a run; that they hold under any order is for the simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.training import DAY, contract_text

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.trainer.decide import (
    Action,
    HoldRun,
    Refuse,
    ReleaseRun,
    StartRun,
    WritePlan,
    decide,
    expecting,
)
from tailrace.trainer.happened import (
    Alerted,
    Applied,
    Asked,
    CaughtUp,
    CommandAnswered,
    DriftJudged,
    Event,
    HeldBack,
    RunStep,
    Stepped,
    WindowJudged,
)
from tailrace.trainer.run import PUBLISHED, REJECTED, OpenTrigger, Run, run_id
from tailrace.trainer.state import State

MODEL = "credit"


def applied(triggers: str = "[{drift: alert}, {quality: alert}]") -> Applied:
    contract = load_contract(contract_text(MODEL, triggers=triggers))
    return Applied(AppliedContract(MODEL, 1, contract.digest, contract.resolved_json, "", "", 0))


def window(
    day: int, labelled: int = 120, mature: bool = True, version: int = 1, age: int = 0
) -> WindowJudged:
    start = day * DAY
    return WindowJudged(
        MODEL, version, "champion", "d", start, start + DAY, start + (1 + age) * DAY, labelled, mature
    )


def alerted(day: int, kind: Any = "drift", version: int | None = 1, **changed: Any) -> Alerted:
    trigger = OpenTrigger(kind, f"{kind}-{day}", (day + 1) * DAY, day * DAY, "", version)
    return Alerted(MODEL, replace(trigger, **changed))


def stepped(step: str, version: int, champion: int) -> Stepped:
    return Stepped(MODEL, step, version, champion)


FIRST = stepped("first-champion", 1, 1)


def after(*events: Event, drift_until: int = 1_000) -> tuple[State, list[Action]]:
    state = State()
    for event in (DriftJudged(MODEL, drift_until * DAY), *events):
        state, actions = decide(state, event)
        assert not actions
    return decide(state, CaughtUp())


def the_plan(*events: Event, **options: Any) -> Run:
    (action,) = after(*events, **options)[1]
    assert isinstance(action, WritePlan)
    return action.run


def test_a_trigger_waits_for_labels_from_after_the_change() -> None:
    quiet = [applied(), FIRST, *(window(day) for day in range(10)), alerted(8), window(10)]
    # The windows of days 8, 9 and 10 are from after the change: 8 and 9 have enough labels when 9 closes.
    assert the_plan(*quiet).cut == 10 * DAY
    short = [applied(), FIRST, *(window(day) for day in range(9)), alerted(8)]
    assert after(*short)[1] == []
    immature = [applied(), FIRST, window(8), alerted(8), window(9, mature=False), window(10, mature=False)]
    assert after(*immature)[1] == []
    later = the_plan(*immature, window(9, age=3))
    assert (later.cut, later.labels) == (13 * DAY, 240)


def test_an_older_age_of_a_window_replaces_the_younger_one() -> None:
    run = the_plan(applied(), FIRST, alerted(8), window(8, 50), window(8, 120, age=1), window(9, 90))
    assert (run.cut, run.labels, run.window_start, run.window_end) == (10 * DAY, 210, 8 * DAY, 10 * DAY)


def test_the_plan_says_what_the_run_rests_on() -> None:
    run = the_plan(
        applied(), FIRST, alerted(8), alerted(9, "quality"), *(window(day) for day in range(7, 12))
    )
    assert run.run_id == run_id(MODEL, 10 * DAY)
    assert [t.id for t in run.triggers] == ["drift-8", "quality-9"]
    assert (run.champion, run.changed_at) == (1, 8 * DAY)


def test_windows_of_several_versions_add_up() -> None:
    assert the_plan(applied(), FIRST, alerted(8), window(8, 100), window(8, 110, version=2)).labels == 210


def test_only_triggers_of_the_contract_count() -> None:
    facts = [FIRST, alerted(8), *(window(day) for day in range(8, 12))]
    assert after(applied("[{quality: alert}]"), *facts)[1] == []
    assert after(applied("[]"), *facts)[1] == []


def test_a_schedule_and_a_volume_count_from_the_last_run() -> None:
    run = the_plan(applied("[{every: 5d}]"), *(window(day) for day in range(20)))
    assert (run.cut, run.triggers[0].kind) == (5 * DAY, "every")
    ended = [RunStep(run), RunStep(replace(run, state=PUBLISHED))]
    again = the_plan(applied("[{every: 5d}]"), *(window(day) for day in range(20)), *ended)
    assert (again.cut, again.changed_at) == (10 * DAY, 5 * DAY)
    many = the_plan(applied("[{labels: 500}]"), *(window(day) for day in range(20)))
    assert (many.cut, many.labels, many.triggers[0].kind) == (5 * DAY, 600, "labels")


def test_a_run_is_worked_on_until_its_end_and_nothing_else_is_planned() -> None:
    facts = [applied(), FIRST, alerted(8), *(window(day) for day in range(7, 30))]
    run = the_plan(*facts)
    planned = [*facts, RunStep(replace(run, offsets=((0, 7),))), alerted(20, "quality")]
    assert after(*planned)[1] == [StartRun(replace(run, offsets=((0, 7),)))]
    # Of two plans the first counts, and no record takes a run back.
    twice = [
        *planned,
        RunStep(replace(run, offsets=((0, 9),))),
        RunStep(replace(run, state="trained")),
        RunStep(run),
    ]
    (work,) = after(*twice)[1]
    assert isinstance(work, StartRun)
    assert (work.run.offsets, work.run.state) == (((0, 7),), "trained")


def published(facts: list[Event], version: int = 2) -> list[Event]:
    run = the_plan(*facts)
    return [*facts, RunStep(run), RunStep(replace(run, state=PUBLISHED, version=version))]


def test_alerts_about_a_version_that_is_being_replaced_start_nothing() -> None:
    facts = published([applied(), FIRST, alerted(8), *(window(day) for day in range(8, 30))])
    assert after(*facts, alerted(11))[1] == []
    # Longer than a cool-down the candidate has had no effect: a new alert is a new reason.
    assert the_plan(*facts, alerted(15)).cut == 17 * DAY
    # And so it is where it is about the new version.
    assert the_plan(*facts, stepped("promote", 2, 2), alerted(11, version=2)).cut == 13 * DAY


def test_an_alert_is_answered_by_the_run_whose_cut_it_came_by() -> None:
    facts = published([applied(), FIRST, alerted(8), *(window(day) for day in range(8, 30))])
    assert after(*facts, alerted(9, version=None))[1] == [], "at the cut itself"
    assert the_plan(*facts, alerted(10, version=None)).triggers[0].id == "drift-10"
    # About the version that is being replaced, up to the end of the cool-down.
    assert after(*facts, alerted(12))[1] == []
    assert the_plan(*facts, alerted(13)).triggers[0].id == "drift-13"


def test_what_is_refused_is_tried_again_when_it_has_cooled_down() -> None:
    base = [applied(), FIRST, alerted(8), *(window(day) for day in range(8, 30))]
    run = the_plan(*base)
    by_gates = [*base, RunStep(run), RunStep(replace(run, state=REJECTED))]
    by_rollout = [*published(base), stepped("reject", 2, 1)]
    taken_back = [*published(base), stepped("promote", 2, 2), stepped("rollback", 1, 1)]
    for facts in (by_gates, by_rollout, taken_back):
        again = the_plan(*facts)
        assert again.cut == run.cut + 3 * DAY
        assert (again.changed_at, [t.id for t in again.triggers]) == (8 * DAY, ["drift-8"])
        resolved = replace(alerted(8), resolved=True)
        assert after(*facts, resolved)[1] == []
    assert after(*published(base))[1] == []


def test_an_alert_about_a_version_that_answers_no_more_and_is_over_starts_nothing() -> None:
    facts = [
        applied(),
        FIRST,
        alerted(8),
        *(window(day) for day in range(8, 12)),
        replace(alerted(8), resolved=True),
    ]
    assert the_plan(*facts).cut == 10 * DAY  # over, but the version that it is about still answers
    assert after(*facts, stepped("promote", 2, 2))[1] == []


def test_a_run_waits_for_drift_to_come_as_far_but_not_for_ever() -> None:
    facts: list[Event] = [applied(), FIRST, alerted(8, "quality"), window(8), window(9)]
    assert after(*facts, drift_until=9)[1] == []
    assert the_plan(*facts, drift_until=10).cut == 10 * DAY
    assert after(*facts, window(11), drift_until=9)[1] == []
    assert the_plan(*facts, window(12), drift_until=9).cut == 10 * DAY


def asked(name: str, refusal: str | None = None) -> Asked:
    return Asked(MODEL, name, "because", refusal)


def test_a_command_trains_on_the_latest_that_is_known_whatever_the_cooldown() -> None:
    facts = [*published([applied(), FIRST, alerted(8), *(window(day) for day in range(8, 11))]), window(11)]
    run = the_plan(*facts, asked("c"))
    assert (run.cut, run.window_start, run.triggers[0].id) == (12 * DAY, 8 * DAY, "c")
    answered = [
        *facts,
        asked("c"),
        RunStep(run),
        RunStep(replace(run, state=PUBLISHED, version=3)),
        asked("c"),
    ]
    assert after(*answered)[1] == []


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ([applied()], "no window of credit"),
        ([applied(), window(8, 30)], "fewer mature labels than the 200"),
        (published([applied(), FIRST, alerted(8), window(8), window(9)]), "made from the same labels"),
    ],
)
def test_a_command_that_cannot_be_carried_out_is_refused_once(facts: list[Event], why: str) -> None:
    (refuse,) = after(*facts, asked("c"))[1]
    assert isinstance(refuse, Refuse)
    assert why in refuse.why
    assert after(*facts, asked("c"), CommandAnswered("c"))[1] == []


def test_a_command_that_nobody_trusted_signed_is_refused() -> None:
    (refuse,) = after(applied(), window(8, 500), asked("c", "no trusted key"))[1]
    assert refuse == Refuse(asked("c", "no trusted key"), "no trusted key")


def test_of_two_commands_under_one_id_the_first_counts() -> None:
    facts = [applied(), FIRST, *(window(day) for day in range(8, 11))]
    (refuse,) = after(*facts, asked("c", "no trusted key"), asked("c"))[1]
    assert refuse == Refuse(asked("c", "no trusted key"), "no trusted key")
    (plan,) = after(*facts, asked("c"), asked("c", "no trusted key"))[1]
    assert isinstance(plan, WritePlan)


def test_a_run_is_expected_where_windows_are_judged_and_there_are_triggers() -> None:
    assert expecting(after(applied(), window(8))[0])
    assert not expecting(after(applied("[]"), window(8))[0])
    assert not expecting(after(applied())[0])
    assert not expecting(after(window(8))[0])


def test_models_do_not_concern_each_other() -> None:
    other = Alerted("other", alerted(8).trigger)
    assert after(applied(), FIRST, other, *(window(day) for day in range(8, 12)))[1] == []


def test_what_candidates_were_worth_stays_with_a_run_whose_later_steps_do_not_say() -> None:
    facts = [applied(), FIRST, alerted(8), *(window(day) for day in range(8, 30))]
    run, worth = the_plan(*facts), ({"candidate": 1},)
    trained = [*facts, RunStep(run), RunStep(replace(run, state="trained", evaluations=worth))]
    (state, _) = after(*trained, RunStep(replace(run, state=PUBLISHED, version=2)))
    (known,) = state.runs
    assert (known.state, known.version, known.evaluations) == (PUBLISHED, 2, worth)


FROZEN, UNFROZEN = (replace(FIRST, step=step, frozen=step == "freeze") for step in ("freeze", "unfreeze"))


def test_a_frozen_model_is_not_trained_by_itself_and_one_alert_says_so() -> None:
    facts = [applied(), FIRST, alerted(8), *(window(day) for day in range(8, 30))]
    due = the_plan(*facts)
    (held,) = after(*facts, FROZEN)[1]
    assert isinstance(held, HoldRun)
    assert held.run_id == due.run_id
    held_back = HeldBack(MODEL, due.run_id, resolved=False)
    assert after(*facts, FROZEN, held_back)[1] == []
    # With all that became known meanwhile.
    assert after(*facts, FROZEN, held_back, UNFROZEN)[1] == [ReleaseRun(MODEL, due.run_id), WritePlan(due)]
    over = HeldBack(MODEL, due.run_id, resolved=True)
    assert after(*facts, FROZEN, held_back, UNFROZEN, over)[1] == [WritePlan(due)]


def test_what_a_person_asks_for_is_trained_and_what_was_begun_ends_though_the_model_is_frozen() -> None:
    facts = [applied(), FIRST, alerted(8), *(window(day) for day in range(8, 30))]
    run = the_plan(*facts)
    assert StartRun(run) in after(*facts, RunStep(run), FROZEN)[1]
    (planned,) = after(*facts, FROZEN, asked("c"))[1]
    assert isinstance(planned, WritePlan)
    assert planned.run.triggers[0].kind == "command"


def test_a_run_that_is_not_due_any_more_is_held_back_no_more() -> None:
    facts = [applied(), FIRST, alerted(8), *(window(day) for day in range(8, 30))]
    run = the_plan(*facts)
    held_back = HeldBack(MODEL, run.run_id, resolved=False)
    assert after(*facts, FROZEN, held_back, applied("[]"))[1] == [ReleaseRun(MODEL, run.run_id)]
