"""drift as a process."""

from __future__ import annotations

from tailrace.access.own_folders import packages_folder
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.drift.windows import DriftWindows
from tailrace.models.manifest import Manifest
from tailrace.models.package.fetch import KafkaChunks, PackageFetcher
from tailrace.models.package.open import known_to, open_reference
from tailrace.models.reference import Reference
from tailrace.runtime.service import Service
from tailrace.runtime.windowed_service import CatchUp, run_windows
from tailrace.signing.trust import TrustStore


def main() -> None:
    run_windows("drift", make_windows)


def make_windows(service: Service, catch_up: CatchUp) -> DriftWindows:
    home = service.settings.home
    fetch = PackageFetcher(packages_folder(home, service.name), KafkaChunks(service.connection))
    # What answers goes on after its key was revoked, and is watched as before.
    trust = TrustStore(home / "keys", past=True)

    def opened(record: ModelManifestRecord) -> tuple[Manifest, Reference]:
        return open_reference(record, fetch, trust)

    return DriftWindows(service.records, opened, known_to(home), catch_up)


if __name__ == "__main__":
    main()
