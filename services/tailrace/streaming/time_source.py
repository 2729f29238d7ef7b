"""Wall time, elapsed time and waiting, which a simulation makes its own."""

from __future__ import annotations

import time
from typing import Protocol

from tailrace.streaming.processor import Clock


class WaitingClock(Clock, Protocol):
    """A clock that the exactly-once runner can also wait on."""

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def perf_ns(self) -> int:
        return time.perf_counter_ns()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
