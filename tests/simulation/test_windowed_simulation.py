"""Windows under seeded schedules: the reports are those that a computation over the whole log gives, ids, numbers and
order, whatever happens on the way.
"""

from __future__ import annotations

import random

from tests.support.simulation import OUTSIDE, Scenario, drained, simulate
from tests.support.toy_windows import (
    CODEC,
    COUNTED,
    LANE,
    Feeder,
    ToyWindows,
    contract_records,
    create_topics,
    expected_reports,
    reports,
)

from tailrace.contracts.records.lanes import WINDOW_PARTS
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.bounds import STEP
from tailrace.streaming.processor import Processor
from tailrace.streaming.records import Record
from tailrace.windows.processor import WindowedProcessor


class WindowedScenario(Scenario):
    keep_after = 5

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.log = log
        # Of what is due, a step may do all, or a little.
        self.bounds = STEP._replace(records=rng.choice([STEP.records, 1, 3]))
        create_topics(log, self.partitions)
        self.producer = log.backend(OUTSIDE).producer("toy")
        self.producer.init()
        self._write(contract_records()[:2])
        self.feeder = Feeder(rng, self.partitions)

    def _write(self, records: list[Record]) -> None:
        self.producer.begin()
        self.producer.produce(records)
        self.producer.commit()

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        if not self.feeder.all_contracts and rng.random() < 0.3:
            self.feeder.all_contracts = True
            self._write(contract_records()[2:])
        self._write(self.feeder.some())

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        """In half of the schedules time passes everywhere until all windows are over."""
        self._write(self.feeder.tick(10_000 if rng.random() < 0.5 else self.feeder.latest))

    def logic(self) -> Processor:
        topics = self.log.topics()
        return WindowedProcessor(
            ToyWindows(), CODEC, lambda topic: topics[topic], keep_after=self.keep_after, bounds=self.bounds
        )

    def done(self, log: MemoryLog) -> bool:
        if not drained(log, self.group, [*COUNTED, WINDOW_PARTS]):
            return False
        return self.is_still(log)

    def check(self, log: MemoryLog) -> None:
        assert reports(log) == expected_reports(log)
        fed = [m for topic in COUNTED for m in log.messages(topic) if m.value() == b"nonsense"]
        assert len(log.messages(LANE.dead_letters)) == len(fed)


def test_reports_equal_a_computation_over_the_whole_log() -> None:
    simulate(WindowedScenario, 60, long=500)
