"""The time of a log in memory."""

from __future__ import annotations

from dataclasses import dataclass

from tailrace.streaming.backends.memory.broker import MemoryBroker


@dataclass
class MemoryClock:
    """The log's time as a clock, so that waiting costs nothing."""

    log: MemoryBroker
    name: str = "client"

    def now_ms(self) -> int:
        return self.log.now_ms

    def perf_ns(self) -> int:
        return self.log.now_ms * 1_000_000

    def sleep(self, seconds: float) -> None:
        self.log.call(self.name, "sleep")
        self.log.pass_time(int(seconds * 1000))
