"""The clock as a process."""

from __future__ import annotations

from tailrace.clock.loop import ClockLoop
from tailrace.kit.clock import SystemClock
from tailrace.kit.service import run_service


def main() -> None:
    run_service("clock", lambda service: ClockLoop(service, SystemClock()))


if __name__ == "__main__":
    main()
