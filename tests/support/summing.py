"""A processor with its state in the log alone: sums of the last numbers of each partition, and how many there were."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from tailrace.streaming.backends.abstract import Committed, History
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import Message, Record, RecordRef, TopicPartition

LAST = 4


class Summing:
    """Answers each number with the sum of the partition's last four numbers, and how many there have been.

    The last four are read again from the numbers themselves, from an offset that the metadata says; the count
    from a topic of the service's own that it does not consume.
    """

    def __init__(
        self, numbers: str = "lane.numbers", sums: str = "lane.sums", counts: str = "lane.counts"
    ) -> None:
        self.numbers = numbers
        self.sums = sums
        self.count_topic = counts
        self.last: dict[int, list[tuple[int, int]]] = {}
        self.counts: dict[int, int] = {}

    def control_topics(self) -> Sequence[str]:
        return ()

    def topics(self) -> frozenset[str]:
        return frozenset({self.numbers})

    def control(self, messages: Sequence[Message]) -> None: ...

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> History:
        history: dict[TopicPartition, tuple[int, int | None]] = {}
        for tp, (offset, metadata) in partitions.items():
            assert tp.partition not in self.last, "assigned twice"
            self.last[tp.partition] = []
            self.counts[tp.partition] = 0
            if metadata:
                history[tp] = int(metadata), offset
                history[TopicPartition(self.count_topic, tp.partition)] = 0, None
        return history

    def restore(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.topic() == self.count_topic:
                self.counts[message.partition()] = int(message.value() or b"")
            else:
                self.last[message.partition()].append((message.offset(), int(message.value() or b"")))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            del self.last[tp.partition], self.counts[tp.partition]

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        records: list[Record] = []
        output = Output(records)
        last = {partition: list(pairs) for partition, pairs in self.last.items()}
        counts = dict(self.counts)
        for message in batch:
            at = message.partition()
            last[at] = [*last[at], (message.offset(), int(message.value() or b""))][-LAST:]
            counts[at] += 1
            answer = [str(RecordRef.of(message)), sum(number for _, number in last[at]), counts[at]]
            records.append(Record(self.sums, json.dumps(answer).encode(), None, (), at))
        for at in {message.partition() for message in batch}:
            records.append(Record(self.count_topic, b"%d" % counts[at], None, (), at))
            output.metadata_of[TopicPartition(self.numbers, at)] = str(last[at][0][0])
        output.on_committed = lambda: self._apply(last, counts)
        return output

    def _apply(self, last: dict[int, list[tuple[int, int]]], counts: dict[int, int]) -> None:
        self.last, self.counts = last, counts

    def waiting(self) -> str | None:
        return None


def expected_sums(numbers: Sequence[Message]) -> list[list[object]]:
    """The answers to all numbers of one partition."""
    values = [int(message.value() or b"") for message in numbers]
    return [
        [str(RecordRef.of(message)), sum(values[max(0, at + 1 - LAST) : at + 1]), at + 1]
        for at, message in enumerate(numbers)
    ]
