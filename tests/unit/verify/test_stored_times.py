"""Whether ClickHouse holds the times of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tailrace.streaming.records import PlainMessage, TopicPartition
from tailrace.verify.check import Offsets
from tailrace.verify.rows import NO_TIME
from tailrace.verify.stored_times import LoggedTimes

YEAR_1900 = -2_208_988_800_000


class Rows:
    """Rows in memory: by offset, the times of two columns."""

    def __init__(self, stored: dict[int, tuple[int, int | None]]) -> None:
        self._stored = stored

    def times(self, partition: TopicPartition, columns: Sequence[str], first: int, last: int) -> Offsets:
        assert partition == TopicPartition("m.outcomes", 2)
        assert columns == ("known_at", "label_time")
        offsets = sorted(offset for offset in self._stored if first <= offset <= last)
        rows = [(o, *(NO_TIME if t is None else t for t in self._stored[o])) for o in offsets]
        return np.array(rows, np.int64).reshape(-1, 3)


@pytest.mark.parametrize(
    ("logged", "stored", "wrong"),
    [
        ({5: (10, 1), 7: (20, None)}, {7: (20, None), 5: (10, 1)}, []),
        ({5: (10, 1), 7: (20, None)}, {5: (10, 1), 7: (21, None)}, [(7, "known_at")]),
        ({5: (10, 1), 7: (20, None)}, {5: (10, 2), 7: (20, 0)}, [(5, "label_time"), (7, "label_time")]),
        ({5: (10, 1)}, {5: (10, None)}, [(5, "label_time")]),
        # What ClickHouse has no time for is not compared: the record is unreadable, or misses.
        ({5: (YEAR_1900 - 1, 1), 7: (20, 1)}, {5: (YEAR_1900, 1), 7: (20, 1)}, []),
        ({5: (10, 1), 7: (20, 1)}, {5: (10, 1)}, []),  # what misses is another check's
        ({5: (10, 1), 7: (20, 1)}, {7: (20, 1)}, []),
        ({5: (10, 1), 7: (20, 1)}, {7: (10, 1)}, [(7, "known_at")]),
        ({7: (20, 1)}, {5: (10, 1), 7: (20, 1)}, []),  # what is stored and not in the log, too
        ({}, {}, []),
    ],
)
def test_a_time_that_differs_is_named(
    logged: dict[int, tuple[int, int | None]],
    stored: dict[int, tuple[int, int | None]],
    wrong: list[tuple[int, str]],
) -> None:
    times = LoggedTimes()
    for offset, (known_at, label_time) in logged.items():
        message = PlainMessage("m.outcomes", 2, offset, b"", None, [], 0)
        times.take(message, known_at=known_at, label_time=label_time)
    rows: Any = Rows(stored)
    problems = list(times.problems(rows))
    assert [(problem.offset, problem.detail.split()[2]) for problem in problems] == wrong
    assert {problem.check for problem in problems} <= {"stored-otherwise"}
