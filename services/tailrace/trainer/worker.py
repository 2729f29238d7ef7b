"""One run in a process of its own: ``python -m tailrace.trainer.worker BYTES``, with the job as one line on stdin.

It says what it does as JSON lines on stdout: ``{"progress": 0.2, "doing": "..."}``, then ``{"trained": {...}}``, then
``{"end": "published"|"rejected"|"failed", ...}``. Its memory is limited, BLAS and OpenMP have one thread (another
number adds up in another order), and it ends when stdin does: with whoever started it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection, connect, home_dir
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.errors import TailraceError, Unavailable
from tailrace.streaming.backends.abstract import LogError
from tailrace.trainer.events import run_of
from tailrace.trainer.run import FAILED, PUBLISHED, REJECTED, Run

LATER = 75
"""Exit code: something is away for the moment, the same job may be done again (EX_TEMPFAIL)."""

_LIBRARIES = (
    "skl2onnx",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "river.linear_model",
    "river.preprocessing",
    "tailrace.streaming.backends.kafka.reading",
    "tailrace.models.package.open",
    "tailrace.control.publish",
    "tailrace.models.formats.onnx.run",
    "tailrace.trainer.work",
)

MEMORY = "TAILRACE_TRAIN_MEMORY_MB"

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
)


def main() -> None:
    # What libraries print is not to come between the lines that are read.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    memory_bytes = int(sys.argv[1])
    _limit(memory_bytes)
    load_libraries()
    line = sys.stdin.readline()
    if not line:
        return  # there was no job for it
    job = json.loads(line)
    threading.Thread(target=_end_with_stdin, daemon=True).start()

    def write_line(**facts: Any) -> None:
        lines.write(json.dumps(facts) + "\n")

    try:
        _work(job, write_line)
    except MemoryError:
        write_line(end=FAILED, reason=f"it needs more than {memory_bytes >> 20:,} MiB: raise {MEMORY}")
    except (Unavailable, LogError, TailraceError) as error:
        print(f"later: {error}", file=sys.stderr)
        raise SystemExit(LATER) from error


def load_libraries() -> None:
    """Loads what a job needs, before there is one."""
    for name in _LIBRARIES:
        importlib.import_module(name)


def _work(job: Mapping[str, Any], write_line: Any) -> None:
    from tailrace.control.publish import publish_package
    from tailrace.signing.signers import TRAINER
    from tailrace.signing.trust import own_key
    from tailrace.trainer.dataset import dataset
    from tailrace.trainer.work import train

    run, contract = run_of(job["run"]), ModelContract.from_resolved(job["contract"])
    connection = connect(user="trainer")
    registry = RegistryClient(connection.registry, connection.registry_auth)

    def progress(share: float, doing: str) -> None:
        write_line(progress=share, doing=doing)

    outcomes = _outcomes(connection, contract, run)
    champion = None if run.champion is None else _champion(connection, registry, contract, run.champion)
    try:
        progress(0.0, "reading outcomes")
        rows = dataset(run, contract, Codec(registry), outcomes)
        trained = train(run, rows, champion, job["best"], progress)
    except (Unavailable, LogError, MemoryError):
        raise
    except TailraceError as error:
        write_line(end=FAILED, reason=str(error))
        return
    except Exception as error:  # whatever scikit-learn says about these rows
        traceback.print_exc()
        write_line(end=FAILED, reason=f"training raised {type(error).__name__}: {error}"[:1000])
        return
    write_line(trained=dict(trained.record))
    if trained.failed:
        write_line(end=REJECTED, reason="; ".join(trained.failed))
        return
    progress(0.95, "publishing")
    home = home_dir()
    try:
        published = publish_package(connection, trained.package, own_key(home, TRAINER), home, once=True)
    except TailraceError as error:
        raise Unavailable(str(error)) from error
    write_line(end=PUBLISHED, version=published.version)


def _outcomes(connection: Connection, contract: ModelContract, run: Run) -> Any:
    """The messages of the lane's outcomes, up to where the plan says that reading may stop."""
    from tailrace.streaming.backends.kafka.reading import read_all

    waiting = {partition for partition, offset in run.offsets if offset > 0}
    until = dict(run.offsets)
    try:
        for message in read_all(connection, [lanes.Lane(contract.lane).outcomes]):
            yield message
            if message.offset() + 1 >= until.get(message.partition(), 0):
                waiting.discard(message.partition())
                if not waiting:
                    return
    except TailraceError as error:
        raise Unavailable(str(error)) from error


def _champion(connection: Connection, registry: RegistryClient, contract: ModelContract, version: int) -> Any:
    """The champion, loaded from its package; None where it does not fit the contract any more."""
    from tailrace.access.own_folders import packages_folder
    from tailrace.contracts.state.fold_topics import fold_all
    from tailrace.models.catalog import Catalog
    from tailrace.models.errors import PackageRefused
    from tailrace.models.package.fetch import KafkaChunks, PackageFetcher
    from tailrace.models.package.open import known_to, open_package
    from tailrace.signing.signers import TRAINER
    from tailrace.signing.trust import TrustStore

    home = home_dir()
    trust = TrustStore(home / "keys", past=True)
    catalog = Catalog(known_to(home))
    fold_all(connection, catalog)
    record = catalog.record(contract.model, version)
    try:
        if record is not None:
            fetch = PackageFetcher(packages_folder(home, TRAINER), KafkaChunks(connection))
            return open_package(record, fetch, trust, contract)
    except PackageRefused as refused:
        print(f"version {version} cannot be compared with: {refused}", file=sys.stderr)
    return None


def _limit(memory_bytes: int) -> None:
    """Address space, since that is what the system can hold a process to."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _end_with_stdin() -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock would be held when the process ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
