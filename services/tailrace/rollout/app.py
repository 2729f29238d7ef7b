"""The rollout service as a process."""

from __future__ import annotations

from tailrace.access.own_folders import examined_folder, packages_folder
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.models.package.examiner import ExaminationLimits, Examiner
from tailrace.models.package.fetch import KafkaChunks, PackageFetcher
from tailrace.models.package.open import Verified, verified_manifest, verified_package
from tailrace.rollout.processor import RolloutProcessor
from tailrace.runtime.service import Service, run_logic
from tailrace.signing.trust import TrustStore


def main() -> None:
    # Commands and manifests are decided by one instance, since steps follow each other: each topic has one
    # partition, and both go to the same member.
    run_logic("rollout", make_logic, co_partitioned=True)


def make_logic(service: Service) -> RolloutProcessor:
    home = service.settings.home
    fetch = PackageFetcher(packages_folder(home, service.name), KafkaChunks(service.connection))
    trust = TrustStore(home / "keys")
    examine = Examiner(ExaminationLimits.of(service.settings), examined_folder(home, service.name)).start()

    def opened(record: ModelManifestRecord, contract: ModelContract, newer_than: int) -> Verified:
        package = verified_package(record, fetch, trust, newer_than=newer_than)
        examine(package, contract)
        return package

    return RolloutProcessor(
        service.records, lambda record: verified_manifest(record, trust), opened, trust.command_refusal
    )


if __name__ == "__main__":
    main()
