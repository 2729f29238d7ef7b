"""The clock as a process."""

from __future__ import annotations

from tailrace.clock.loop import ClockLoop
from tailrace.runtime.service import run_service
from tailrace.streaming.time_source import SystemClock


def main() -> None:
    run_service("clock", lambda service: ClockLoop(service, SystemClock()))


if __name__ == "__main__":
    main()
