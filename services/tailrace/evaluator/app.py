"""evaluator as a process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrace.evaluator.windows import PerformanceWindows
from tailrace.models.manifest import Manifest
from tailrace.models.package.open import verified_manifest
from tailrace.runtime.service import Service
from tailrace.runtime.windowed_service import CatchUp, run_windows
from tailrace.signing.trust import TrustStore


def main() -> None:
    run_windows("evaluator", make_windows)


def make_windows(service: Service, catch_up: CatchUp) -> PerformanceWindows:
    # What answers goes on after its key was revoked, and is watched as before.
    trust = TrustStore(service.settings.home / "keys", past=True)

    def verify(record: Mapping[str, Any]) -> Manifest:
        return verified_manifest(record, trust)

    return PerformanceWindows(service.records, verify, catch_up)


if __name__ == "__main__":
    main()
