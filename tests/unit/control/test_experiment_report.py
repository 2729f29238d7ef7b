"""What `tailrace experiment` says of arms, and how it draws it."""

from __future__ import annotations

import pytest
from tests.support.reports import DAY, earned, report

from tailrace.cli.experiment import picture, rows
from tailrace.control.experiment_report import described
from tailrace.models.rollout_state.fold import Arm, ExperimentState, RolloutState

STATE = RolloutState(
    "credit",
    champion=1,
    experiment=ExperimentState("fixed", 0.5, "s", (Arm("a", 1, 0.5), Arm("b", 3, 0.5))),
    experiment_began=DAY,
)


def test_arms_are_described_by_the_reports_on_them() -> None:
    reports = [
        earned(1, 1, [9.0] * 50),  # of the window in which it began
        earned(1, 2, [1.0, 0.0] * 50, requests=120),
        earned(3, 2, [2.0, 0.0] * 50),
        earned(3, 2, [7.0] * 50, model="other"),
        report(3, 1, 2),
    ]
    shown = described(STATE, reports)
    assert (shown["assign"], shown["share"], shown["began"], shown["windows"]) == ("fixed", 0.5, DAY, 1)
    a, b = shown["arms"]
    assert (a["arm"], a["version"], a["requests"], a["outcomes"]) == ("a", 1, 120, 100)
    assert (a["value"], b["value"]) == (pytest.approx(50 / 120), 1.0)
    assert a["low"] < a["value"] < a["high"] < b["low"]
    assert a["best"] + b["best"] == 1.0
    assert b["best"] > 0.999


def test_without_a_closed_window_nothing_is_known() -> None:
    shown = described(STATE, [earned(1, 2, [1.0] * 9)])
    assert shown["windows"] == 0
    assert [(arm["requests"], arm["value"], arm["best"]) for arm in shown["arms"]] == [(0, None, None)] * 2
    assert rows(shown["arms"])[0]["picture"] == ""
    assert [row["arm"] for row in rows(shown["arms"])] == ["a: version 1", "b: version 3"]


def test_intervals_are_drawn_on_one_scale() -> None:
    ends = [0.0, 31.0]
    assert picture(0.0, 10.0, 20.0, ends) == "|---------o---------|"
    assert picture(21.0, 26.0, 31.0, ends) == " " * 21 + "|----o----|"
    assert picture(None, None, None, ends) == ""
    assert picture(2.0, 2.0, 2.0, [2.0, 2.0]) == "o"
