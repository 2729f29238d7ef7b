"""Publishes a package: chunks and manifest in one Kafka transaction, so that all is there or nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tailrace.connection import Connection, connect, home_dir
from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import ChunkRecord, ModelManifestRecord
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold_topics import contract_to_build_for, fold_all
from tailrace.contracts.state.records import ControlRecords
from tailrace.control.apply import applied_by
from tailrace.errors import TailraceError
from tailrace.files.data_mapping import find_mapping
from tailrace.models.catalog import given
from tailrace.models.formats.compare import MOST_DIFFERENCE
from tailrace.models.formats.foreign import refuse_object
from tailrace.models.manifest import Manifest, sha256
from tailrace.models.package.build import BuildChecks, Package, build_package
from tailrace.models.package.contract_fit import misfits
from tailrace.models.package.open import MANIFEST_BYTES, PACKAGE_BYTES, verified_manifest
from tailrace.signing.keys import SigningKey, verifies
from tailrace.signing.records import manifest_bytes
from tailrace.signing.trust import TrustStore, own_key

CHUNK_BYTES = 512 << 10

# A publisher that is killed holds back those who read manifests for as long as this.
_TRANSACTION_MS = 20_000
_TIMEOUT_S = 30.0
_NOT_TAKEN = f"Kafka has not taken all chunks within {_TIMEOUT_S:.0f} s: nothing was published"


@dataclass(frozen=True)
class Publication:
    """What was published: a version of a model, under the digest that its predictions will name."""

    manifest: Manifest
    digest: str
    size: int

    @property
    def model(self) -> str:
        return self.manifest.model

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def metrics(self) -> Mapping[str, float]:
        """On the holdout."""
        return self.manifest.holdout.metrics

    def to_dict(self) -> dict[str, Any]:
        conversion = self.manifest.conversion
        return {
            "model": self.model,
            "version": self.version,
            "digest": self.digest,
            "format": self.manifest.format,
            "conversion": conversion.note if conversion else "as it came",
            "bytes": self.size,
            "rows": self.manifest.lineage.rows,
            "holdout_rows": self.manifest.holdout.rows,
            "metrics": dict(self.manifest.holdout.metrics),
            "calibration": calibration_of(self.manifest),
        }


def calibration_of(manifest: Manifest) -> dict[str, Any] | None:
    """How a version's probabilities are calibrated, and metrics of the same rows before; None where they are not."""
    by = manifest.calibration
    if by is None:
        return None
    before = manifest.holdout.uncalibrated or {"log_loss": by.log_loss_before}
    return {
        "method": by.method,
        "slope": by.slope,
        "offset": by.offset,
        "rows": by.rows,
        "metrics_before": before,
    }


def publish(
    estimator: Any,
    X: Any,  # noqa: N803 (scikit-learn's names)
    y: Any,
    *,
    model: str,
    holdout: tuple[Any, Any] | None = None,
    connection: Connection | None = None,
    home: str | Path | None = None,
    project: str | Path | None = None,
    conversion_tolerance: float = MOST_DIFFERENCE,
    calibrate: Literal["never"] | None = None,
    allow_inverted: bool = False,
) -> Publication:
    """Publishes a scikit-learn estimator as the next version of a model.

    The estimator is carried as data: as ONNX where that gives the same outputs, else as a skops archive. The
    first version goes into service once its checks pass; later ones wait for ``tailrace promote``.

    Args:
        estimator: a classifier with ``predict_proba`` or a regressor; fitted here where it is not.
        X: the rows it is fitted on, in the order of time: a data frame with columns named after features of
            the contract or as the file of ``tailrace init`` has them, or a matrix of all
            features in the contract's order.
        y: the truth by row, as the contract or that file spells it.
        model: the logical model; its contract must have been applied.
        holdout: ``(X, y)`` that the estimator has not seen; by default the last fifth of the rows.
        connection: where Kafka and the registry are; by default as the environment or the running home say.
        home: whose key signs; by default ``TAILRACE_HOME`` or ``./.tailrace``.
        project: the folder whose contracts/data says what a file calls columns and classes; by default the current one.
        conversion_tolerance: how far the outputs of a converted estimator may be off, as a share of their spread.
        calibrate: ``"never"`` leaves probabilities as they are; by default they are calibrated where that helps.
        allow_inverted: publishes a version that ranks the holdout the wrong way round.

    Raises:
        TailraceError: it does not fit the contract, answers requests in another way than the rows of X, ranks the
            holdout the wrong way round, or cannot be carried as data; says why and what to do.

    Example:
        >>> tailrace.publish(pipeline, frame, frame_of_labels, model="credit")  # doctest: +SKIP
    """
    refuse_object(estimator)
    folder = Path(home or home_dir())
    where, key = connection or connect(home=folder), own_key(folder)
    mapping = find_mapping(Path(project or Path.cwd()), model)
    checks = BuildChecks(conversion_tolerance, calibrate, allow_inverted)
    contract = contract_to_build_for(where, model)
    package = build_package(estimator, X, y, contract, holdout=holdout, mapping=mapping, checks=checks)
    return publish_package(where, package, key, folder)


def publish_package(
    connection: Connection, package: Package, key: SigningKey, home: Path, *, once: bool = False
) -> Publication:
    """Publishes the package as the model's next version.

    Publishers of one model share a transactional id: whoever comes later ends the other's transaction before
    it looks for the next number, so that no number is given twice.

    Args:
        home: what its keys have signed, revoked ones too, has taken its numbers; nothing else has.
        once: where this key has published the same content before, that publication is returned and nothing is
            written. So a publisher may be repeated after a crash.

    Raises:
        TailraceError: Kafka does not take it, or another publisher of the model came in between.
    """
    from confluent_kafka import KafkaException, Producer

    model = package.manifest.model
    _check_fit(connection, package.manifest)
    size = sum(len(data) for data in package.parts.values())
    if size > PACKAGE_BYTES - MANIFEST_BYTES:
        raise TailraceError(
            f"the package has {size:,} bytes, and scorers let in {PACKAGE_BYTES:,}: fewer or shallower trees, or a "
            "smaller network"
        )
    records = ControlRecords.of(connection)
    producer = Producer(
        {
            **connection.kafka,
            "transactional.id": f"tailrace-publish-{model}",
            "transaction.timeout.ms": _TRANSACTION_MS,
            "partitioner": "murmur2_random",
            "message.max.bytes": 2 * CHUNK_BYTES,
            "linger.ms": 0,
            "log_level": 0,
        }
    )
    try:
        producer.init_transactions(_TIMEOUT_S)
        manifests = _manifests(connection, records, model)
        before = _of_content(package, manifests, key, records.home) if once else None
        if before is not None:
            return Publication(before, before.digest, size + len(before.to_bytes()))
        numbered = package.numbered(*_next_numbers(manifests, TrustStore(home / "keys", past=True)))
        producer.begin_transaction()
        chunks = _produce_chunks(producer, numbered)
        record = manifest_record(
            numbered, chunks, key, records.home, published_by=applied_by(), at_ms=int(time.time() * 1000)
        )
        value = records.codec.encode("ModelManifest", record)
        producer.produce(lanes.MANIFESTS, value, f"{model}/{record['version']}".encode())
        producer.commit_transaction(_TIMEOUT_S)
    except KafkaException as failed:
        error = failed.args[0]
        if error.fatal():
            raise TailraceError(
                f"another publisher of {model} came in between, nothing was published: try again"
            ) from None
        raise TailraceError(f"Kafka did not take the package: {error.str()}") from failed
    finally:
        del producer
    return Publication(numbered.manifest, record["digest"], size + len(record["manifest"]))


def _check_fit(connection: Connection, manifest: Manifest) -> None:
    """A version that is built for a change that is held has to fit the contract in force as well, where it is tried.

    Raises:
        TailraceError: it does not.
    """
    contracts = Contracts()
    fold_all(connection, contracts)
    held = contracts.held.get(manifest.model)
    if held is None or held.digest != manifest.contract_digest:
        return
    for misfit in misfits(manifest, contracts.in_force(manifest.model).contract):
        raise TailraceError(
            f"built for the change that is held, and under the contract in force {misfit.what}: bring what the change "
            "adds into force first, which no version has to fit, and hold the rest"
        )


def _manifests(connection: Connection, control: ControlRecords, model: str) -> list[ModelManifestRecord]:
    """The model's records of ``tailrace.model-manifests``, whoever has signed them."""
    from tailrace.streaming.backends.kafka.reading import read_all

    messages = read_all(connection, [lanes.MANIFESTS])
    records = (control.read(message) for message in messages)
    return [record for record in records if record is not None and record["model"] == model]


def _next_numbers(records: list[ModelManifestRecord], trust: TrustStore) -> tuple[int, int]:
    """The next version and sequence: beyond those of every manifest that is verified."""
    numbers = given(records, lambda record: verified_manifest(record, trust))
    return numbers.version + 1, numbers.sequence + 1


def _of_content(
    package: Package, records: list[ModelManifestRecord], key: SigningKey, home: str
) -> Manifest | None:
    """The manifest under which this key has published the same content."""
    for record in records:
        signed = manifest_bytes(home, record["manifest"])
        if record["key_id"] == key.key_id and verifies(key.public, record["signature"], signed):
            manifest = Manifest.from_bytes(record["manifest"])
            if manifest.content_digest == package.manifest.content_digest:
                return manifest
    return None


def manifest_record(
    package: Package, chunks: list[ChunkRecord], key: SigningKey, home: str, *, published_by: str, at_ms: int
) -> ModelManifestRecord:
    """The record of ``tailrace.model-manifests``, signed for the home with this id."""
    manifest = package.manifest.to_bytes()
    return {
        "model": package.manifest.model,
        "version": package.manifest.version,
        "manifest": manifest,
        "digest": sha256(manifest),
        "signature": key.sign(manifest_bytes(home, manifest)),
        "key_id": key.key_id,
        "chunks": chunks,
        "published_at": at_ms,
        "published_by": published_by,
    }


def chunks_of_package(package: Package, size: int = CHUNK_BYTES) -> list[tuple[str, int, bytes]]:
    """Part, index and bytes of each chunk, in order."""
    return [
        (part, index, data[start : start + size])
        for part, data in package.parts.items()
        for index, start in enumerate(range(0, len(data), size))
    ]


def chunk_record(part: str, index: int, data: bytes, partition: int, offset: int) -> ChunkRecord:
    return {
        "part": part,
        "index": index,
        "partition": partition,
        "offset": offset,
        "size": len(data),
        "sha256": sha256(data),
    }


def _produce_chunks(producer: Any, package: Package) -> list[ChunkRecord]:
    """Writes the chunks and waits for their offsets, which the manifest is to name."""
    from confluent_kafka import KafkaException

    written: dict[tuple[str, int], Any] = {}
    pieces = chunks_of_package(package)
    until = time.monotonic() + _TIMEOUT_S
    for part, index, data in pieces:

        def delivered(error: Any, message: Any, at: tuple[str, int] = (part, index)) -> None:
            written[at] = (error, message)

        key = f"{package.manifest.model}/{package.manifest.version}/{part}/{index}"
        while True:
            try:
                producer.produce(lanes.CHUNKS, data, key.encode(), on_delivery=delivered)
                break
            except BufferError:
                if time.monotonic() > until:
                    raise TailraceError(_NOT_TAKEN) from None
                producer.poll(0.1)
    producer.flush(_TIMEOUT_S)
    chunks = []
    for part, index, data in pieces:
        if (part, index) not in written:
            raise TailraceError(_NOT_TAKEN)
        error, message = written[part, index]
        if error is not None:
            raise KafkaException(error)
        chunks.append(chunk_record(part, index, data, message.partition(), message.offset()))
    return chunks
