"""What the demo makes of the topics: answers, accuracy from reports, milestones and their picture."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.metrics import accuracy_score

from tailrace.demo import accuracy
from tailrace.demo.accuracy import Point, Share
from tailrace.demo.display import chart, sparkline
from tailrace.demo.milestones import drift_alerts, milestones, successor
from tailrace.demo.observed import Seen
from tailrace.streaming.records import RecordRef

CHANGE = 1_000


def _prediction(offset: int, version: int = 1, event_time: int = 0) -> dict[str, Any]:
    return {
        "source": {"topic": "credit.requests", "partition": 0, "offset": offset},
        "event_time": event_time,
        "version": version,
        "action": "approve",
        "request_id": f"r{offset}",
    }


def _alert(kind: str, at: int, version: int = 1, alert_id: str = "") -> dict[str, Any]:
    return {
        "alert_id": alert_id or f"{kind}{at}{version}",
        "state": "raised",
        "kind": kind,
        "model": "credit",
        "version": version,
        "at": at,
        "summary": "look",
    }


def _report(start: int, role: str, version: int, right: float | None, n: int, **more: Any) -> dict[str, Any]:
    report = {
        "report_id": f"{start} {role} {version} {more}",
        "model": "credit",
        "window_start": start,
        "window_end": start + 10,
        "role": role,
        "version": version,
        "segment": "",
        "against": None,
        "age": 10,
        "mature": True,
        "metrics": [{"metric": "auc", "value": 0.1, "n": n}, {"metric": "accuracy", "value": right, "n": n}],
        "paired": [],
    }
    return report | more


def test_answers_are_matched_with_requests_in_whatever_order_the_topics_come() -> None:
    seen = Seen("credit")
    requests = [RecordRef("credit.requests", 0, offset) for offset in range(3)]
    seen.request(requests[0], 100)
    seen.prediction(RecordRef("credit.predictions", 0, 7), 130, _prediction(0, event_time=5))
    seen.prediction(RecordRef("credit.predictions", 0, 8), 131, _prediction(1, event_time=6))
    assert [a.wait_ms for a in seen.answers] == [30]
    seen.request(requests[1], 101)
    seen.request(requests[2], 102)
    assert [(a.source, a.wait_ms) for a in seen.answers] == [(requests[0], 30), (requests[1], 30)]
    assert (seen.requests, seen.twice, seen.event_ms) == (3, 0, 6)
    seen.prediction(RecordRef("credit.predictions", 0, 9), 140, _prediction(1))
    assert seen.twice == 1


def test_records_of_other_models_change_nothing() -> None:
    seen = Seen("credit")
    seen.control("Alert", _alert("drift", 5) | {"model": "wine"}, 0)
    assert not seen.alerts


def test_the_last_window_is_the_latest_of_the_version_that_answers() -> None:
    seen = Seen("credit")
    assert seen.last_window() is None
    for start, role, segment in (
        (10, "champion", ""),
        (20, "champion", ""),
        (0, "champion", ""),
        (30, "shadow", ""),
    ):
        report = {"report_id": f"{start}{role}", "model": "credit", "role": role, "segment": segment}
        seen.control("DriftReport", report | {"window_start": start}, 0)
    report = seen.last_window()
    assert report is not None
    assert report["window_start"] == 20


def test_an_alert_about_the_time_before_or_about_the_new_version_is_false() -> None:
    seen = Seen("credit")
    for at, version in ((CHANGE, 1), (CHANGE + 10, 1), (CHANGE + 50, 2)):
        seen.control("Alert", _alert("drift", at, version), 0)
    true, false = drift_alerts(seen, CHANGE)
    assert [a["at"] for a in true] == [CHANGE + 10]
    assert [a["at"] for a in false] == [CHANGE, CHANGE + 50]


def test_accuracy_is_that_of_all_outcomes_of_the_latest_mature_reports() -> None:
    truth = {0: ([1, 1, 0, 0], [1, 0, 0, 0]), 10: ([1, 0, 1, 0, 1], [1, 0, 1, 0, 0]), 20: ([1], [0])}
    reports = [
        _report(start, "champion", 1, accuracy_score(*pair), len(pair[0])) for start, pair in truth.items()
    ]
    expected = accuracy_score(truth[0][0] + truth[10][0], truth[0][1] + truth[10][1])
    other = [
        _report(0, "champion", 1, 0.1, 2, age=0),
        _report(0, "champion", 1, 0.1, 400, age=20, mature=False),
        _report(0, "champion", 1, 0.1, 400, segment="region=north"),
        _report(0, "shadow", 2, 0.1, 400),
        _report(0, "champion", 2, 0.1, 400),
    ]
    share = accuracy.answered([*other, *reports], 1, 0, 20)
    assert share.value == pytest.approx(expected)
    assert share.n == 9
    assert accuracy.answered(reports, 3, 0, 20) == Share(None, 0)


def test_versions_are_compared_on_the_requests_that_both_scored() -> None:
    def paired(start: int, against: int, mine: float, theirs: float, n: int) -> dict[str, Any]:
        pair = {"metric": "accuracy", "version_value": mine, "against_value": theirs, "n": n}
        return _report(start, "shadow", 1, None, 0, against=against, paired=[pair])

    reports = [paired(0, 2, 0.5, 0.75, 4), paired(10, 2, 0.75, 1.0, 12), paired(10, 3, 0.0, 0.0, 100)]
    mine, theirs = accuracy.on_the_same_requests(reports, 1, {2})
    assert mine == Share((2 + 9) / 16, 16)
    assert theirs == Share((3 + 12) / 16, 16)
    assert accuracy.on_the_same_requests(reports, 1, set()) == (Share(None, 0), Share(None, 0))


def test_the_line_has_a_point_per_window() -> None:
    reports = [
        _report(10, "champion", 1, 0.5, 10),
        _report(10, "champion", 2, 1.0, 30),
        _report(10, "shadow", 1, 0.6, 30),
        _report(10, "shadow", 3, 0.1, 30),
        _report(0, "champion", 1, 0.8, 10),
    ]
    assert accuracy.line(reports, 1) == [
        Point(0, Share(0.8, 10), Share(None, 0)),
        Point(10, Share(0.875, 40), Share(0.6, 30)),
    ]


def test_the_picture_shows_each_value_at_its_height() -> None:
    points = [
        Point(0, Share(0.9, 1), Share(None, 0)),
        Point(1, Share(0.5, 1), Share(0.5, 1)),
        Point(2, Share(0.99, 1), Share(0.1, 1)),
    ]
    lines = chart(points, low=0.5, high=0.9, height=3)
    assert lines[:3] == ["0.90 ┤ ●     ●", "0.70 ┤        ", "0.50 ┤    ◉  ○"]
    assert sparkline([0, 1, 2, 4]) == "▁▃▅█"
    assert sparkline([]) == ""


def test_a_milestone_has_a_text_once_it_happened_and_not_before() -> None:
    seen = Seen("credit")
    texts = {milestone.name: milestone.text for milestone in milestones(CHANGE)}
    assert [name for name in texts if texts[name](seen) is not None] == []
    seen.control("Alert", _alert("drift", CHANGE - 10), 0)
    seen.control("Alert", _alert("quality-drop", CHANGE - 10), 0)
    assert [name for name in texts if texts[name](seen) is not None] == []
    seen.control("Alert", _alert("drift", CHANGE + 10), 0)
    seen.control("Alert", _alert("quality-drop", CHANGE + 20), 0)
    assert [name for name in texts if texts[name](seen) is not None] == ["a drift alert", "a quality alert"]
    assert successor(seen) is None
