from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.contracts.language.load import load_contract
from tailrace.replay.schedule import ACTION, LABEL, REQUEST, LaterRecords, ReplayClock, ReplayPace, schedule
from tailrace.replay.send import labels_after, last_watermark

times = st.lists(st.integers(0, 1_000), max_size=50).map(sorted)


@given(times, st.data())
def test_schedule_is_every_request_and_what_follows_once_in_order_of_event_time(
    requests: list[int], data: st.DataObject
) -> None:
    def later() -> LaterRecords:
        rows = data.draw(
            st.lists(st.integers(0, len(requests) - 1), unique=True) if requests else st.just([])
        )
        after = [requests[row] + data.draw(st.integers(0, 500)) for row in rows]
        return LaterRecords(np.array(rows, dtype=np.int64), np.array(after, dtype=np.int64))

    labels, actions = later(), later()
    plan = schedule(np.array(requests, dtype=np.int64), labels, actions)
    sent = list(zip(plan.time.tolist(), plan.kind.tolist(), plan.row.tolist(), strict=True))
    expected = [(t, REQUEST, i) for i, t in enumerate(requests)]
    expected += [(t, LABEL, i) for i, t in zip(labels.row.tolist(), labels.time.tolist(), strict=True)]
    expected += [(t, ACTION, i) for i, t in zip(actions.row.tolist(), actions.time.tolist(), strict=True)]
    assert sent == sorted(expected)


def test_labels_come_after_their_delay_unless_nobody_knows_them_yet() -> None:
    contract = load_contract(
        "model: m\nowner: {team: t}\nfeatures: {x: {type: number}}\ntarget: {name: y, type: boolean}\n"
    )
    rows = pl.DataFrame({"event_time": [0, 10, 20, 30], "y": [True, None, False, True]})
    labels, not_due = labels_after(rows, contract, delay_ms=5, until_ms=25)
    assert (labels.row.tolist(), labels.time.tolist(), not_due) == ([0, 2], [5, 25], 1)


def test_the_last_mark_closes_what_is_over_and_is_never_of_the_future() -> None:
    assert last_watermark(1_000, 600, now_ms=5_000) == 1_600
    assert last_watermark(1_000, 600, now_ms=1_200) == 1_200
    assert last_watermark(1_000, 600, now_ms=900) == 1_000


@pytest.mark.parametrize(("rate", "speed"), [(100.0, None), (None, 2.0), (None, None)])
def test_pace_waits_exactly_until_the_next_record_is_due(rate: float | None, speed: float | None) -> None:
    times = np.array([1_000, 1_500, 1_500, 9_000], dtype=np.int64)
    pace = ReplayPace(times, rate, speed)
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
    clock = ReplayClock(["requests", "labels"], 2)
    assert clock.tick(10) == clock.partitions
    clock.wrote("requests", 1, 15)
    assert clock.tick(20) == [("requests", 0), ("labels", 0), ("labels", 1)]
    assert clock.tick(20) == []
    assert clock.tick(30) == clock.partitions
