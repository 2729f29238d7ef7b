"""A batch on its way through the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.decoder import Ints, Mask
from tailrace.errors import BadRecord
from tailrace.scorer.answers import AnswerIdentity, ScoredAnswers
from tailrace.scorer.rows import Requests
from tailrace.streaming.records import (
    Message,
    PausedPartition,
    Record,
    RecordRef,
    Records,
    Runs,
    TopicPartition,
)

_FEW = 32
"""Rows that are not worth a call of their own."""


@dataclass
class Batch:
    """Everything about a batch by position in it: where each message is, and what has come of it so far.

    Attributes:
        appended: append time of each message, in ms.
        started_ns: when the batch was taken up, by the clock's ``perf_ns``.
        requests: those that can be read, by model.
        watermarks: event time in ms of each watermark record.
        bad: why a message becomes a dead letter.
        written: positions of messages, each with a record to be written for it.
        failing: versions in shadow that have no prediction for a row: the first such row, and why.
        answered: what is written, for those who count: positions of messages, by whom, and with what.
        asked: how long models took, in ms, and for how many rows, by model and version.
    """

    topics: list[str]
    partitions: list[int]
    offsets: list[int]
    appended: list[int]
    started_ns: int
    requests: list[Requests] = field(default_factory=list)
    watermarks: dict[int, int] = field(default_factory=dict)
    bad: dict[int, BadRecord] = field(default_factory=dict)
    written: list[tuple[Ints, Sequence[Record]]] = field(default_factory=list)
    failing: dict[tuple[str, int], tuple[int, str]] = field(default_factory=dict)
    answered: list[tuple[Ints, AnswerIdentity, ScoredAnswers]] = field(default_factory=list)
    asked: dict[tuple[str, int], tuple[float, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Sequence[Message], started_ns: int) -> Batch:
        topics, partitions = [m.topic() for m in batch], [m.partition() for m in batch]
        offsets, appended = [m.offset() for m in batch], [m.timestamp()[1] for m in batch]
        return cls(topics, partitions, offsets, appended, started_ns)

    @cached_property
    def append_times(self) -> Ints:
        return np.array(self.appended, dtype=np.int64)

    @cached_property
    def partition_numbers(self) -> Ints:
        return np.array(self.partitions, dtype=np.int64)

    @cached_property
    def offset_numbers(self) -> Ints:
        return np.array(self.offsets, dtype=np.int64)

    def partition(self, at: int) -> TopicPartition:
        return TopicPartition(self.topics[at], self.partitions[at])

    def sources(self, at: Ints) -> tuple[str, Ints, Ints]:
        """Of messages of one topic: the topic, and by message partition and offset."""
        return self.topics[int(at[0])], self.partition_numbers[at], self.offset_numbers[at]

    def source(self, at: int) -> RecordRef:
        return RecordRef(self.topics[at], self.partitions[at], self.offsets[at])

    @cached_property
    def places(self) -> dict[TopicPartition, Ints]:
        """The partitions of the batch, each with the positions of its messages."""
        places = {}
        topics = sorted(set(self.topics))
        for topic in topics:
            own = self.partition_numbers
            if len(topics) > 1:
                own = np.where([name == topic for name in self.topics], own, -1)
            for partition in np.flatnonzero(np.bincount(own + 1)).tolist():
                if partition:
                    places[TopicPartition(topic, partition - 1)] = np.flatnonzero(own == partition - 1)
        return places

    def time(self, model: str, version: int, took_ms: float, rows: int) -> None:
        """Takes how long a version took for some rows."""
        before_ms, before = self.asked.get((model, version), (0.0, 0))
        self.asked[model, version] = before_ms + took_ms, before + rows

    def write(self, positions: Ints, records: Sequence[Record]) -> None:
        """Takes records; those for one message stay in the order in which they came."""
        self.written.append((positions, records))

    def records(self) -> Sequence[Record]:
        """All records, in the order of the messages."""
        if len(self.written) == 1:
            return self.written[0][1]
        if not self.written:
            return []
        order = np.concatenate([positions for positions, _ in self.written]).argsort(kind="stable")
        written = [records for _, records in self.written]
        columns = [records for records in written if isinstance(records, Records)]
        others = [record for records in written if not isinstance(records, Records) for record in records]
        count = sum(map(len, columns))
        if len({records.topic for records in columns}) != 1 or len(others) * _FEW > count:
            every = [record for records in written for record in records]
            return [every[at] for at in order.tolist()]
        values = BytesColumn.end_to_end([records.values for records in columns])
        keys = BytesColumn.end_to_end([records.keys for records in columns])
        together = Records(columns[0].topic, values, keys)
        if not others:
            return together.take(order)
        which = np.concatenate([np.full(len(records), isinstance(records, Records)) for records in written])
        numbers = np.where(which, which.cumsum(), (~which).cumsum()) - 1
        return _in_runs(together, others, numbers[order], which[order])

    def cut(self, paused: Mapping[TopicPartition, PausedPartition]) -> None:
        """Leaves only what comes before partitions are paused."""

        def goes(at: int) -> bool:
            pause = paused.get(self.partition(at))
            return pause is None or self.offsets[at] < pause.offset

        kept = []
        for requests in self.requests:
            rows = np.array([row for row, at in enumerate(requests.at.tolist()) if goes(at)], dtype=np.int64)
            if len(rows):
                kept.append(requests.take(rows))
        self.requests = kept
        self.watermarks = {at: time for at, time in self.watermarks.items() if goes(at)}
        self.bad = {at: bad for at, bad in self.bad.items() if goes(at)}


def _in_runs(columns: Records, others: Sequence[Record], numbers: Ints, of_columns: Mask) -> Runs:
    """Rows of the columns and other records in an order: by their numbers among their like."""
    runs: list[Sequence[Record]] = []
    loose: list[Record] = []
    begin = 0
    for cut in [*np.flatnonzero(~of_columns).tolist(), len(numbers)]:
        between = columns.take(numbers[begin:cut])
        if len(between) < _FEW:
            loose += between
        else:
            runs += [loose, between]
            loose = []
        if cut < len(numbers):
            loose.append(others[numbers[cut]])
        begin = cut + 1
    return Runs([run for run in [*runs, loose] if run])
