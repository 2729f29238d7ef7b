"""When the demo lets time stand still, by a clock of the test's own."""

from __future__ import annotations

from typing import Any

from tailrace.demo.observed import Seen
from tailrace.demo.pacing import STILL_S, Pacing, behind, unjudged
from tailrace.streaming.records import RecordRef

DAY = 86_400_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _seen(answers: int = 0, event_ms: int = 0) -> Seen:
    seen = Seen("credit")
    for offset in range(answers):
        at = RecordRef("credit.requests", 0, offset)
        seen.request(at, 0)
        source = {"topic": "credit.requests", "partition": 0, "offset": offset}
        answer = {"source": source, "event_time": event_ms, "version": 1, "action": "a", "request_id": "r"}
        seen.prediction(RecordRef("credit.predictions", 0, offset), 0, answer)
    return seen


def _run(seen: Seen, state: str, version: int | None = None) -> None:
    seen.control("TrainingRun", {"model": "credit", "run_id": "1", "state": state, "version": version}, 0)


def _report(seen: Seen, name: str, end: int) -> None:
    report: dict[str, Any] = {"model": "credit", "report_id": f"{name}{end}", "window_end": end}
    seen.control(name, report, 0)


def test_services_that_keep_up_are_behind_with_nothing() -> None:
    assert behind(_seen(100), 400, rate=200) is None


def test_what_services_are_behind_with_is_named() -> None:
    assert behind(_seen(100), 1000, rate=200) == "answers to 900 requests"
    seen = _seen()
    _run(seen, "training")
    assert behind(seen, 0, 200) == "a training run (training)"
    _run(seen, "published", 2)
    assert behind(seen, 0, 200) == "version 2 to be taken up, which is published"
    seen.steps.append({"version": 2})
    assert behind(seen, 0, 200) is None


def test_windows_that_are_over_for_long_are_to_be_judged() -> None:
    seen = _seen(1, event_ms=45 * DAY)
    assert (unjudged(seen, 0, 10 * DAY) or "").startswith("drift reports on windows until 1970-01-16")
    _report(seen, "DriftReport", 20 * DAY)
    assert (unjudged(seen, 0, 10 * DAY) or "").startswith("performance reports")
    _report(seen, "PerformanceReport", 20 * DAY)
    assert unjudged(seen, 0, 10 * DAY) is None


def test_time_stands_still_where_services_are_behind_for_longer_than_usual_until_they_are_not() -> None:
    clock = Clock()
    pacing = Pacing(8, clock)
    held = []
    for second in range(40):
        clock.now = second
        held.append(pacing.holds("a training run" if 10 <= second < 30 else None, second))
    assert held == [18 <= second < 30 for second in range(40)]


def test_a_short_delay_holds_nothing_however_often_it_comes() -> None:
    clock = Clock()
    pacing = Pacing(8, clock)
    for second in range(100):
        clock.now = second
        assert not pacing.holds("answers" if second % 8 else None, second)


def test_what_makes_no_progress_is_waited_for_no_longer_and_not_again() -> None:
    clock = Clock()
    pacing = Pacing(8, clock)
    assert not pacing.holds("a training run", 7)
    clock.now = STILL_S
    assert pacing.holds("a training run", 7)
    clock.now += 1
    assert not pacing.holds("a training run", 7)
    clock.now += 1
    assert not pacing.holds("a training run", 8), (
        "time goes on again, which is not the progress that was waited for"
    )
    assert not pacing.holds(None, 9)
    assert not pacing.holds("a training run", 9)
    clock.now += 9
    assert pacing.holds("a training run", 9)


def test_progress_counts_everything_that_is_seen() -> None:
    seen = _seen(2)
    before = seen.progress()
    _report(seen, "DriftReport", 1)
    assert seen.progress() != before
