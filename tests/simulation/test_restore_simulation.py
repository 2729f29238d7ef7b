"""State that is read again from the log: whoever takes a partition over knows all that its last owner knew."""

from __future__ import annotations

import json
import random

from tests.support.simulation import OUTSIDE, Scenario, drained, simulate
from tests.support.summing import Summing, expected_sums

from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Record

NUMBERS, SUMS, COUNTS = "lane.numbers", "lane.sums", "lane.counts"


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
            expected = expected_sums(log.messages(NUMBERS, partition))
            assert [json.loads(m.value() or b"") for m in log.messages(SUMS, partition)] == expected


class EagerSummingScenario(SummingScenario):
    co_partitioned = True


def test_what_the_last_owner_knew_is_read_again() -> None:
    simulate(SummingScenario, 500)


def test_the_same_with_partitions_that_are_given_up_at_each_rebalance() -> None:
    simulate(EagerSummingScenario, 150)
