"""The trainer as a process."""

from __future__ import annotations

from tailrace.runtime.service import run_service
from tailrace.trainer.loop import TrainerLoop


def main() -> None:
    run_service("trainer", TrainerLoop)


if __name__ == "__main__":
    main()
