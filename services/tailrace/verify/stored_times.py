"""Whether ClickHouse has the times of predictions and outcomes as the log has them."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from tailrace.clickhouse.tables import FIRST_TIME, LAST_TIME
from tailrace.streaming.records import Message
from tailrace.streaming.records import TopicPartition as Partition
from tailrace.verify.check import AccountProblem, problems_at
from tailrace.verify.rows import NO_TIME, StoredRows


class LoggedTimes:
    """Times of records as they are read, by partition. A record with one that ClickHouse does not have is stored as
    unreadable, and not compared.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Partition, tuple[str, ...]], array[int]] = defaultdict(lambda: array("q"))

    def take(self, message: Message, **times: int | None) -> None:
        """A record's times (ms since 1970) by the names of their columns, the same ones for all of a topic."""
        numbers = [NO_TIME if time is None else time for time in times.values()]
        if all(number == NO_TIME or FIRST_TIME <= number <= LAST_TIME for number in numbers):
            partition = Partition(message.topic(), message.partition())
            self._kept[partition, tuple(times)].extend((message.offset(), *numbers))

    def problems(self, rows: StoredRows) -> Iterator[AccountProblem]:
        """Each record that is stored with another time; one that is not stored is another's to report."""
        for (partition, columns), kept in self._kept.items():
            logged = np.array(kept, np.int64).reshape(-1, 1 + len(columns))
            stored = rows.times(partition, columns, int(logged[:, 0].min()), int(logged[:, 0].max()))
            both, in_log, in_rows = np.intersect1d(logged[:, 0], stored[:, 0], return_indices=True)
            for number, column in enumerate(columns, start=1):
                wrong = both[logged[in_log, number] != stored[in_rows, number]]
                detail = f"has another {column} in ClickHouse than in the log"
                yield from problems_at("stored-otherwise", partition, wrong, detail)
