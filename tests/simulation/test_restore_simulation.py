"""State that is read again from the log: whoever takes a partition over knows all that its last owner knew."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping, Sequence

from tests.support.simulation import OUTSIDE, Scenario, drained, simulate

from tailrace.kit.log import Committed, History
from tailrace.kit.logic import Clock, Output
from tailrace.kit.memory_log import MemoryLog
from tailrace.kit.messages import Message, Record, Source, TopicPartition

NUMBERS, SUMS, COUNTS = "lane.numbers", "lane.sums", "lane.counts"
LAST = 4


class Summing:
    """Answers each number with the sum of the partition's last four numbers, and how many there have been.

    The last four are read again from the numbers themselves, from an offset that the metadata says; the count
    from a topic of the service's own that it does not consume.
    """

    def __init__(self) -> None:
        self.last: dict[int, list[tuple[int, int]]] = {}
        self.counts: dict[int, int] = {}
        self.pending: tuple[Output, dict[int, list[tuple[int, int]]], dict[int, int]] | None = None

    def control_topics(self) -> Sequence[str]:
        return ()

    def topics(self) -> frozenset[str]:
        return frozenset({NUMBERS})

    def control(self, messages: Sequence[Message]) -> None: ...

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> History:
        history: dict[TopicPartition, tuple[int, int | None]] = {}
        for tp, (offset, metadata) in partitions.items():
            assert tp.partition not in self.last, "assigned twice"
            self.last[tp.partition] = []
            self.counts[tp.partition] = 0
            if metadata:
                history[tp] = int(metadata), offset
                history[TopicPartition(COUNTS, tp.partition)] = 0, None
        return history

    def restore(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.topic() == COUNTS:
                self.counts[message.partition()] = int(message.value() or b"")
            else:
                self.last[message.partition()].append((message.offset(), int(message.value() or b"")))

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            del self.last[tp.partition], self.counts[tp.partition]

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        output = Output()
        last = {partition: list(some) for partition, some in self.last.items()}
        counts = dict(self.counts)
        for message in batch:
            at = message.partition()
            last[at] = [*last[at], (message.offset(), int(message.value() or b""))][-LAST:]
            counts[at] += 1
            answer = [str(Source.of(message)), sum(number for _, number in last[at]), counts[at]]
            output.records.append(Record(SUMS, json.dumps(answer).encode(), None, (), at))
        for at in {message.partition() for message in batch}:
            output.records.append(Record(COUNTS, b"%d" % counts[at], None, (), at))
            output.metadata_of[TopicPartition(NUMBERS, at)] = str(last[at][0][0])
        self.pending = output, last, counts
        return output

    def committed(self, output: Output) -> None:
        assert self.pending is not None
        assert self.pending[0] is output
        _, self.last, self.counts = self.pending

    def waiting(self) -> str | None:
        return None


class SummingScenario(Scenario):
    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        for topic in (NUMBERS, SUMS, COUNTS):
            log.create_topic(topic, self.partitions)
        self.producer = log.backend(OUTSIDE).producer("numbers")
        self.producer.init()

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        # In transactions of which some are aborted, so that offsets are missing in between and at the ends.
        self.producer.begin()
        for _ in range(rng.randint(1, 8)):
            number = b"%d" % rng.randrange(1_000)
            self.producer.produce([Record(NUMBERS, number, None, (), rng.randrange(self.partitions))])
        if rng.random() < 0.7:
            self.producer.commit()
        else:
            self.producer.abort()

    def logic(self) -> Summing:
        return Summing()

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, [NUMBERS])

    def check(self, log: MemoryLog) -> None:
        for partition in range(self.partitions):
            fed = log.messages(NUMBERS, partition)
            numbers = [int(message.value() or b"") for message in fed]
            expected = [
                [str(Source.of(message)), sum(numbers[max(0, at + 1 - LAST) : at + 1]), at + 1]
                for at, message in enumerate(fed)
            ]
            assert [json.loads(m.value() or b"") for m in log.messages(SUMS, partition)] == expected


class EagerSummingScenario(SummingScenario):
    co_partitioned = True


def test_what_the_last_owner_knew_is_read_again() -> None:
    simulate(SummingScenario, 1_000)


def test_the_same_with_partitions_that_are_given_up_at_each_rebalance() -> None:
    simulate(EagerSummingScenario, 300)
