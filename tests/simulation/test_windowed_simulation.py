"""Windows under seeded schedules: the reports are those that a computation over the whole log gives, ids, numbers and
order, whatever happens on the way.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

from tests.support.simulation import OUTSIDE, Scenario, drained, simulate
from tests.support.toy_windows import (
    CODEC,
    COUNTED,
    DIGESTS,
    LANE,
    STREAMS,
    ToyWindows,
    contract_records,
    create_topics,
    expected_reports,
    reports,
)

from tailrace.contracts.lanes import WINDOW_PARTS
from tailrace.kit.logic import Logic
from tailrace.kit.marks import mark
from tailrace.kit.memory_log import MemoryLog
from tailrace.kit.messages import Record
from tailrace.kit.windowed import WindowedLogic


class WindowedScenario(Scenario):
    keep_after = 5

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.log = log
        create_topics(log, self.partitions)
        self.producer = log.backend(OUTSIDE).producer("toy")
        self.producer.init()
        self._write(contract_records()[:2])
        self.second = False
        self.now: dict[tuple[str, int], int] = defaultdict(int)
        self.marks: dict[tuple[int, str], int] = defaultdict(int)
        self.judged = 0

    def _write(self, records: list[Record]) -> None:
        self.producer.begin()
        self.producer.produce(records)
        self.producer.commit()

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        if not self.second and rng.random() < 0.3:
            self.second = True
            self._write(contract_records()[2:])
        self._write([self._record(rng) for _ in range(rng.randint(1, 12))])
        if rng.random() < 0.5:
            self._write(self._tick(rng))

    def _tick(self, rng: random.Random) -> list[Record]:
        """Time passes everywhere, so that windows are judged on the way and not only in the end."""
        time = max([*self.now.values(), *self.marks.values(), 0]) + rng.choice([0, 5, 20])
        places = [(topic, p) for topic in STREAMS for p in range(self.partitions)]
        streams = [(p, stream) for p in range(self.partitions) for stream in STREAMS.values()]
        self.now.update(dict.fromkeys(places, time))
        self.marks.update(dict.fromkeys(streams, time))
        ticks = [mark(topic, p, time) for topic, p in places]
        return [*ticks, *(mark(LANE.outcomes, p, time, stream=stream) for p, stream in streams)]

    def _record(self, rng: random.Random) -> Record:
        topic, partition = rng.choice(COUNTED), rng.randrange(self.partitions)
        row: dict[str, Any] = {
            "v": rng.randrange(100),
            "d": rng.choice(DIGESTS if self.second else DIGESTS[:2]),
        }
        if topic in STREAMS:
            now = self.now[topic, partition] = self.now[topic, partition] + rng.choice([0, 0, 1, 3, 9])
            if rng.random() < 0.15:
                return mark(topic, partition, now)
            row["t"] = max(0, now - rng.choice([0, 0, 0, 2, 8, 30]))
        else:
            stream = rng.choice(sorted(STREAMS.values()))
            mark_now = self.marks[partition, stream]
            if rng.random() < 0.4:
                self.marks[partition, stream] = mark_now + rng.choice([0, 4, 15])
                return mark(topic, partition, mark_now, stream=stream)
            row["known"] = mark_now + rng.choice([0, 1, 5, 20])
            row["t"], row["stream"] = max(0, row["known"] - rng.choice([0, 2, 15, 50])), stream
        value = b"nonsense" if rng.random() < 0.03 else json.dumps(row).encode()
        return Record(topic, value, None, (), partition)

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        """In half of the schedules time passes everywhere until all windows are over."""
        if rng.random() < 0.5:
            return
        far = 10_000
        for partition in range(self.partitions):
            self._write([mark(topic, partition, far) for topic in STREAMS])
            self._write([mark(LANE.outcomes, partition, far, stream=stream) for stream in STREAMS.values()])

    def logic(self) -> Logic:
        topics = self.log.topics()
        return WindowedLogic(ToyWindows(), CODEC, lambda topic: topics[topic], keep_after=self.keep_after)

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, [*COUNTED, WINDOW_PARTS])

    def check(self, log: MemoryLog) -> None:
        assert reports(log) == expected_reports(log)
        fed = [m for topic in COUNTED for m in log.messages(topic) if m.value() == b"nonsense"]
        assert len(log.messages(LANE.dead_letters)) == len(fed)


def test_reports_equal_a_computation_over_the_whole_log() -> None:
    simulate(WindowedScenario, 250)
