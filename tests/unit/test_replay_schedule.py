from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.replay.schedule import LABEL, REQUEST, LaneClock, Pace, schedule

rows = st.lists(st.tuples(st.integers(0, 1_000), st.booleans()), max_size=50).map(sorted)


@given(rows, st.none() | st.integers(0, 500))
def test_schedule_is_every_request_and_label_once_in_order_of_event_time(
    given_rows: list[tuple[int, bool]], delay: int | None
) -> None:
    times = np.array([t for t, _ in given_rows], dtype=np.int64)
    labelled = np.array([known for _, known in given_rows], dtype=bool)
    plan = schedule(times, labelled, delay)
    sent = list(zip(plan.time.tolist(), plan.kind.tolist(), plan.row.tolist(), strict=True))
    expected = [(t, REQUEST, i) for i, (t, _) in enumerate(given_rows)]
    if delay is not None:
        expected += [(t + delay, LABEL, i) for i, (t, known) in enumerate(given_rows) if known]
    assert sent == sorted(expected)


def test_a_label_without_delay_follows_its_request() -> None:
    plan = schedule(np.array([5, 6]), np.array([True, True]), 0)
    assert list(zip(plan.kind, plan.row, strict=True)) == [(REQUEST, 0), (LABEL, 0), (REQUEST, 1), (LABEL, 1)]


@pytest.mark.parametrize(("rate", "speed"), [(100.0, None), (None, 2.0), (None, None)])
def test_pace_waits_exactly_until_the_next_record_is_due(rate: float | None, speed: float | None) -> None:
    times = np.array([1_000, 1_500, 1_500, 9_000], dtype=np.int64)
    pace = Pace(times, rate, speed)
    sent, elapsed, log = 0, 0.0, []
    while sent < len(times):
        due = pace.due(elapsed)
        log += [elapsed] * (due - sent)
        sent = due
        elapsed += pace.wait(sent, elapsed) + 1e-9
    expected = {100.0: [0, 0.01, 0.02, 0.03], None: [0, 0, 0, 0]}[rate]
    if speed:
        expected = [0, 0.25, 0.25, 4.0]
    assert log == pytest.approx(expected, abs=1e-6)


def test_partitions_that_got_nothing_since_the_last_tick_are_marked() -> None:
    clock = LaneClock(["requests", "labels"], 2)
    assert clock.tick(10) == clock.partitions
    clock.wrote("requests", 1, 15)
    assert clock.tick(20) == [("requests", 0), ("labels", 0), ("labels", 1)]
    assert clock.tick(20) == []
    assert clock.tick(30) == clock.partitions
