"""Reads ranges of topics once, and keeps at which offsets they have events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.watermark_records import watermark_time
from tailrace.verify.check import Growing
from tailrace.verify.log import Log, OffsetRange
from tailrace.verify.report import VerifyReport

_PROGRESS_EVERY = 10_000


class CountingReader:
    """Reads, and counts.

    Args:
        progress: gets how many records have been read.

    Attributes:
        events: offsets by partition.
        ranges: all that was read.
    """

    def __init__(self, log: Log, report: VerifyReport, progress: Callable[[int], None]) -> None:
        self._log = log
        self._report = report
        self._progress = progress
        self._read = 0
        self.events: dict[TopicPartition, Growing] = defaultdict(Growing)
        self.ranges: dict[TopicPartition, OffsetRange] = {}

    def read(self, ranges: dict[TopicPartition, OffsetRange], take: Callable[[Message], object]) -> None:
        """``take`` gets the events; watermark records only count as read."""
        for message in self._log.read(ranges):
            self._read += 1
            if self._read % _PROGRESS_EVERY == 0:
                self._progress(self._read)
            if watermark_time(message) is None:
                self.events[TopicPartition(message.topic(), message.partition())].append(message.offset())
                take(message)
        self._progress(self._read)
        self.ranges |= ranges
        for partition in ranges:
            self._report.topic(partition.topic)

    def count(self) -> None:
        """Tells the report how many events each topic has."""
        for partition, events in self.events.items():
            self._report.topic(partition.topic).events += len(events)
