"""An experiment's way: who begins and ends it, and how the shares of its arms follow from what they earned."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats
from tests.support.reports import DAY, earned, report
from tests.support.scoring import CONTRACT
from tests.unit.rollout.test_rollout_canary import CANARY
from tests.unit.rollout.test_rollout_logic import BETTER, Desk, desk

from tailrace.models.rollout_state.fold import Rollouts
from tailrace.rollout.paired_reports import PairedReports
from tailrace.signing.keys import SigningKey, verifies
from tailrace.signing.records import command_bytes, sign_command

VALUE = "value: CASE WHEN defaulted THEN -1 ELSE 1 END\n"
HALF, FULL = [1.0, 0.0] * 100, [1.0, 1.0, 1.0, 0.0] * 50


def plan(assign: str, **more: Any) -> str:
    settings = ", ".join(
        f"{name}: {value}" for name, value in {"assign": assign, "outcomes": 300, **more}.items()
    )
    return CONTRACT + VALUE + f"experiment: {{{settings}}}\n"


def begun(assign: str = "thompson", versions: int = 3, arms: tuple[int, ...] = (2, 3), **more: Any) -> Desk:
    """Begun when day 1 had been judged."""
    rollout = desk(versions, plan(assign, **more))
    rollout.reports(report(1, None, 1))
    rollout.happens(rollout.command("experiment", arms=[*arms]))
    assert rollout.names()[-1] == "experiment"
    return rollout


def window(day: int, *rewards: list[float], **changes: Any) -> list[dict[str, Any]]:
    return [earned(version, day, reward, **changes) for version, reward in enumerate(rewards, 1)]


def shares(rollout: Desk) -> list[float]:
    return [arm["probability"] for arm in rollout.steps[-1]["experiment"]["arms"]]


def test_it_begins_in_equal_shares_and_ends_when_a_person_says_so() -> None:
    rollout = begun("fixed", share="20%")
    step = rollout.steps[-1]
    now = step["experiment"]
    assert (now["assign"], now["share"], len(now["salt"])) == ("fixed", 0.2, 16)
    assert [(arm["arm"], arm["version"], arm["mean"]) for arm in now["arms"]] == [
        ("a", 1, None),
        ("b", 2, None),
        ("c", 3, None),
    ]
    assert (step["by"], step["version"], step["champion"], step["shadow"]) == ("ada", None, 1, [])
    # Fixed shares stay whatever is earned.
    rollout.reports(*window(3, HALF, FULL, HALF), *window(4, HALF, FULL, HALF))
    assert rollout.names()[-1] == "experiment"
    rollout.happens(rollout.command("end-experiment"))
    last = rollout.steps[-1]
    assert (last["step"], last["experiment"], last["retired"]) == ("end-experiment", None, [2, 3])


def test_thompson_shares_follow_from_closed_windows_once_all_arms_have_enough() -> None:
    rollout = begun(epsilon="10%")
    salt = rollout.steps[-1]["experiment"]["salt"]
    # Of before it began, and of the window that began with it.
    rollout.reports(*window(1, HALF, FULL, HALF), *window(2, HALF, FULL, HALF))
    rollout.reports(*window(3, HALF, FULL, HALF))
    assert rollout.names()[-1] == "experiment", "200 outcomes of each are too few"
    rollout.reports(*window(4, HALF, FULL, HALF)[:2])
    assert rollout.names()[-1] == "experiment", "an arm's report is missing"
    rollout.reports(*window(4, HALF, FULL, HALF)[2:])
    step = rollout.steps[-1]
    assert (step["step"], step["by"], step["experiment"]["salt"]) == ("arms", "rollout", salt)
    a, b, c = step["experiment"]["arms"]
    assert (a["mean"], b["mean"], c["mean"]) == (0.5, 0.75, 0.5)
    assert (a["requests"], b["requests"], step["evidence"]["outcomes"]) == (400, 400, "400 400 400")
    assert a["deviation"] == pytest.approx((0.25 / 398) ** 0.5)
    apart = stats.norm.cdf(0.25 / (a["deviation"] ** 2 + b["deviation"] ** 2) ** 0.5)
    assert b["best"] == pytest.approx(1 - 2 * (1 - apart), abs=1e-3)
    for arm in (a, b, c):
        assert arm["probability"] == pytest.approx(0.1 / 3 + 0.9 * arm["best"], abs=3e-6)
    assert sum(shares(rollout)) == 1.0
    # The same window at a later age counts once, with what is known then.
    rollout.reports(*window(4, HALF, HALF, HALF, age=DAY))
    assert rollout.steps[-1]["experiment"]["arms"][1]["mean"] == pytest.approx(0.625)
    assert rollout.steps[-1]["experiment"]["arms"][1]["requests"] == 400
    assert rollout.names()[-2:] == ["arms", "arms"]


def test_epsilon_greedy_gives_the_rest_to_the_one_that_earned_most() -> None:
    rollout = begun("epsilon-greedy", epsilon="30%", outcomes=100)
    rollout.reports(*window(3, HALF, HALF, FULL))
    assert shares(rollout) == pytest.approx([0.1, 0.1, 0.8], abs=2e-6)
    rollout.reports(*window(4, HALF, [1.0] * 200, [0.0] * 200))
    assert shares(rollout) == pytest.approx([0.1, 0.8, 0.1], abs=2e-6)


def test_frozen_or_without_its_section_shares_stay_and_what_was_missed_counts_afterwards() -> None:
    rollout = begun(outcomes=100)
    rollout.happens(rollout.command("freeze"))
    rollout.reports(*window(3, HALF, FULL, HALF))
    assert rollout.names()[-1] == "freeze"
    rollout.happens(rollout.command("unfreeze"))
    assert rollout.names()[-2:] == ["unfreeze", "arms"]
    rollout.bench.control(rollout.publisher.contract(CONTRACT + VALUE))
    rollout.reports(*window(4, HALF, HALF, HALF))
    assert rollout.names()[-1] == "arms"
    assert rollout.steps[-1]["experiment"]["arms"][0]["requests"] == 200


def test_others_on_trial_wait_until_it_is_over() -> None:
    rollout = begun(versions=4)
    rollout.reports(report(4, 1, 0), report(4, 1, 1, gains=BETTER))
    assert rollout.names()[-1] == "experiment"
    rollout.happens(rollout.command("end-experiment"))
    assert rollout.names()[-2:] == ["end-experiment", "promote"]


def test_a_severe_alert_about_an_arm_takes_it_out_and_ends_the_experiment() -> None:
    rollout = begun()
    rollout.alert(2, 1)
    assert rollout.names()[-1] == "experiment", "about a window of before"
    output = rollout.alert(2, 3)
    step = rollout.steps[-1]
    assert (step["step"], step["version"], step["champion"], step["experiment"]) == ("reject", 2, 1, None)
    assert (step["rejected"], step["retired"]) == ([2], [3])
    assert [alert["kind"] for alert in rollout.alerts(output)] == ["rolled-back"]
    other = begun()
    other.alert(3, None, kind="version-quarantined")
    assert (other.names()[-1], other.steps[-1]["rejected"]) == ("reject", [3])


def test_one_about_the_champion_brings_the_version_before_it_back() -> None:
    rollout = desk(3, plan("thompson"))
    rollout.happens(rollout.command("promote", 2))
    rollout.reports(report(2, None, 1))
    rollout.happens(rollout.command("experiment", arms=[3, 1]))
    assert rollout.steps[-1]["shadow"] == [1]
    rollout.alert(2, 3)
    step = rollout.steps[-1]
    assert (step["step"], step["champion"], step["experiment"]) == ("rollback", 1, None)
    assert (step["retired"], step["rolled_back"], step["shadow"]) == ([3], [2], [])


def test_what_an_arm_leaves_to_the_fallback_counts() -> None:
    back = plan("fixed") + "rollout: {back_if: {fallback_share: 1%}}\n"
    bad: dict[str, Any] = {"predictions": 1000, "fallbacks": 100, "role": "arm"}
    rollout = desk(3, back)
    rollout.happens(rollout.command("promote", 2), rollout.command("experiment", arms=[3]))
    rollout.reports(report(3, None, 4, **bad))
    assert (rollout.steps[-1]["step"], rollout.steps[-1]["rejected"]) == ("reject", [3])
    other = desk(3, back)
    other.happens(other.command("promote", 2), other.command("experiment", arms=[3]))
    other.reports(report(2, None, 4, **bad))
    assert (other.steps[-1]["step"], other.steps[-1]["champion"]) == ("rollback", 1)


def test_no_canary_beside_it() -> None:
    rollout = desk(3, CANARY + VALUE + "experiment: {}\n")
    rollout.reports(report(day=0), report(day=1, gains=BETTER))
    (alert,) = rollout.alerts(rollout.happens(rollout.command("experiment", arms=[3])))
    assert "as canary" in alert["summary"]
    asked_again = rollout.command("experiment", arms=[3], command_id="again")
    rollout.happens(rollout.command("rollback"), asked_again)
    assert rollout.names()[-2:] == ["reject", "experiment"]


def test_a_new_owner_comes_to_the_same_shares() -> None:
    whole = begun(outcomes=100)
    before = whole.reports(*window(3, HALF, FULL, HALF), *window(4, FULL, FULL, HALF))
    assert before.metadata_of is not None
    fold = Rollouts()
    for offset, step in enumerate(whole.steps):
        assert fold.apply(step, offset)
    state = fold.state("credit")
    assert state.experiment_began == 2 * DAY
    reports = [report(1, None, 1), *window(3, HALF, FULL, HALF), *window(4, FULL, FULL, HALF)]
    all_of_it = PairedReports()
    for offset, each in enumerate(reports):
        all_of_it.apply(each, offset)
        part = PairedReports()
        for later in range(all_of_it.needs(), offset + 1):
            part.apply(reports[later], later)
        assert part == all_of_it
    copied = all_of_it.copy()
    copied.rewards.keep([])
    assert (len(all_of_it.rewards.reports), copied.rewards.reports) == (6, {})


def test_a_command_that_names_no_arms_is_signed_as_it_was_before_there_were_any() -> None:
    key = SigningKey.generate()
    command = {"command_id": "c", "model": "m", "command": "promote", "version": 2, "key_id": key.key_id}
    old = sign_command("home", command, key)
    assert verifies(key.public, old["signature"], command_bytes("home", old | {"arms": []}))
    assert not verifies(key.public, old["signature"], command_bytes("home", old | {"arms": [2]}))
    signed = sign_command("home", command | {"command": "experiment", "arms": [3]}, key)
    assert not verifies(key.public, signed["signature"], command_bytes("home", signed | {"arms": [4]}))
    assert not verifies(key.public, signed["signature"], command_bytes("home", signed | {"arms": []}))
