"""Whether ClickHouse holds the event times of the log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tailrace.streaming.records import TopicPartition
from tailrace.verify.event_times import EventTimes
from tailrace.verify.rows import StoredTimes

YEAR_1900 = -2_208_988_800_000


class Prediction:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def topic(self) -> str:
        return "m.predictions"

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return self._offset


class Rows:
    def __init__(self, stored: dict[int, int]) -> None:
        self._stored = stored

    def event_times(self, partition: TopicPartition, first: int, last: int) -> StoredTimes:
        offsets = sorted(offset for offset in self._stored if first <= offset <= last)
        return StoredTimes(
            np.array(offsets, np.int64), np.array([self._stored[o] for o in offsets], np.int64)
        )


@pytest.mark.parametrize(
    ("logged", "stored", "wrong"),
    [
        ({5: 10, 7: 20}, {7: 20, 5: 10}, []),
        ({5: 10, 7: 20}, {5: 10, 7: 21}, [7]),
        (
            {5: YEAR_1900 - 1, 7: 20},
            {5: YEAR_1900, 7: 20},
            [],
        ),  # the first is not compared: it is unreadable, or misses
        ({5: 10, 7: 20}, {5: 10}, []),  # what misses is another check's
        ({}, {}, []),
    ],
)
def test_a_time_that_differs_is_named(
    logged: dict[int, int], stored: dict[int, int], wrong: list[int]
) -> None:
    times = EventTimes()
    for offset, time in logged.items():
        message: Any = Prediction(offset)
        times.take(message, {"event_time": time})
    rows: Any = Rows(stored)
    problems = list(times.problems(rows))
    assert [problem.offset for problem in problems] == wrong
    assert {problem.check for problem in problems} <= {"stored-otherwise"}
