"""evaluator as a process."""

from __future__ import annotations

from tailrace.evaluator.windows import PerformanceWindows
from tailrace.models.package.open import known_to
from tailrace.runtime.service import Service
from tailrace.runtime.windowed_service import CatchUp, run_windows


def main() -> None:
    run_windows("evaluator", make_windows)


def make_windows(service: Service, catch_up: CatchUp) -> PerformanceWindows:
    # What answers goes on after its key was revoked, and is watched as before.
    return PerformanceWindows(service.records, known_to(service.settings.home), catch_up)


if __name__ == "__main__":
    main()
