"""The scorer as a process: answers requests with the champions."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits

from tailrace.access.own_folders import examined_folder, packages_folder
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.models.formats.load import LoadedModel
from tailrace.models.package.examiner import ExaminationLimits, Examiner
from tailrace.models.package.fetch import KafkaChunks, PackageFetcher
from tailrace.models.package.open import open_package, verified_manifest
from tailrace.runtime.service import Service, run_logic
from tailrace.scorer.processor import ScoringProcessor
from tailrace.scorer.versions import Role
from tailrace.signing.trust import TrustStore

ROLLOUT = "rollout"


def main() -> None:
    run_logic("scorer", lambda service: make_logic(service, "champion"))


def make_logic(service: Service, role: Role) -> ScoringProcessor:
    use_one_thread()
    home = service.settings.home
    fetch = PackageFetcher(packages_folder(home, service.name), KafkaChunks(service.connection))
    trust = TrustStore(home / "keys")
    # Not started ahead: where the rollout service runs on the same machine, what it let in is known.
    passed = examined_folder(home, service.name), examined_folder(home, ROLLOUT)
    examine = Examiner(ExaminationLimits.of(service.settings), *passed)

    def opened(record: ModelManifestRecord, contract: ModelContract) -> LoadedModel:
        return open_package(record, fetch, trust, contract, examine=examine)

    # One thread: packages are opened one after the other, so that what serves keeps its core.
    executor = ThreadPoolExecutor(1, thread_name_prefix="open-package")
    return ScoringProcessor(
        role, service.records, opened, executor, lambda record: verified_manifest(record, trust)
    )


def use_one_thread() -> None:
    """Has linear algebra and polars work on one thread, in this process from now on; polars where it has not begun.

    For a batch, handing work over and waiting for it takes longer than the work, on cores that the broker or other
    instances may want. And linear algebra adds up in another order on another number of threads.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    threadpool_limits(limits=1)


if __name__ == "__main__":
    main()
