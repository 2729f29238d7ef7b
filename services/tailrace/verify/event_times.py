"""Whether ClickHouse has the event times of predictions as the log has them."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tailrace.clickhouse.tables import FIRST_TIME, LAST_TIME
from tailrace.streaming.records import Message
from tailrace.streaming.records import TopicPartition as Partition
from tailrace.verify.check import AccountProblem, problems_at
from tailrace.verify.rows import StoredRows, StoredTimes


class EventTimes:
    """Event times of predictions as they are read, by partition. A time that ClickHouse does not have is stored as
    unreadable, and not compared.
    """

    def __init__(self) -> None:
        self._offsets: dict[Partition, array[int]] = defaultdict(lambda: array("q"))
        self._times: dict[Partition, array[int]] = defaultdict(lambda: array("q"))

    def take(self, message: Message, head: Mapping[str, Any]) -> None:
        """A prediction and the beginning of its event."""
        time = head["event_time"]
        if FIRST_TIME <= time <= LAST_TIME:
            partition = Partition(message.topic(), message.partition())
            self._offsets[partition].append(message.offset())
            self._times[partition].append(time)

    def problems(self, rows: StoredRows) -> Iterator[AccountProblem]:
        """Each prediction that is stored with another event time; one that is not stored is another's to report."""
        for partition, offsets in self._offsets.items():
            logged = StoredTimes(np.array(offsets, np.int64), np.array(self._times[partition], np.int64))
            stored = rows.event_times(partition, int(logged.offsets.min()), int(logged.offsets.max()))
            both, here, those = np.intersect1d(logged.offsets, stored.offsets, return_indices=True)
            wrong = both[logged.times[here] != stored.times[those]]
            yield from problems_at(
                "stored-otherwise", partition, wrong, "has another event time in ClickHouse than in the log"
            )
