"""The shadow scorer as a process: the same program, in a consumer group of its own, with the shadows."""

from __future__ import annotations

from tailrace.runtime.service import run_logic
from tailrace.scorer.app import make_logic


def main() -> None:
    run_logic("shadow-scorer", lambda service: make_logic(service, "shadow"))


if __name__ == "__main__":
    main()
