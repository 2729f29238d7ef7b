"""Removes the chunks of packages that nothing needs any more. What a version was stays: its manifest, its steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tailrace.contracts import lanes
from tailrace.kit.codec import ControlCodec
from tailrace.kit.connection import Connection
from tailrace.kit.errors import TailraceError
from tailrace.kit.reading import read_all
from tailrace.kit.registry import RegistryClient
from tailrace.models.catalog import Catalog
from tailrace.models.package import chunks_of
from tailrace.models.rollout_fold import Rollouts, RolloutState

_TIMEOUT_S = 30.0


class ChunkAt(NamedTuple):
    """A chunk that is on the topic."""

    key: str
    partition: int
    offset: int
    size: int


@dataclass(frozen=True)
class Since:
    """A state of a model's rollout, and when it came into force (append time, ms)."""

    at_ms: int
    state: RolloutState


@dataclass(frozen=True)
class Pruned:
    """What was removed of a version: ``why`` says why nothing needs it."""

    version: int
    chunks: int
    bytes: int
    why: str


def prune(connection: Connection, model: str, predictions_ms: int) -> list[Pruned]:
    """Removes what nothing needs of a model's packages.

    Args:
        predictions_ms: how long the lane keeps predictions, which are scored again from the packages they name.

    Raises:
        TailraceError: Kafka cannot be read or does not take it.
    """
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))
    # Chunks first: whose manifest is not there afterwards was never published, since both are one transaction.
    chunks = []
    for message in read_all(connection, [lanes.CHUNKS]):
        key, value = message.key(), message.value()
        if key is not None and value is not None:
            chunks.append(ChunkAt(key.decode(), message.partition(), message.offset(), len(value)))
    catalog, history = Catalog(), []
    for message in read_all(connection, [lanes.MANIFESTS]):
        if message.value() is not None:
            catalog.apply(codec.decode("ModelManifest", message.value()))
    fold = Rollouts()
    for message in read_all(connection, [lanes.ROLLOUTS]):
        record = codec.decode("Rollout", message.value())
        if fold.apply(record, message.offset()) and record["model"] == model:
            history.append(Since(message.timestamp()[1], fold.state(model)))
    records = {version: catalog.record(model, version) or {} for version in catalog.versions(model)}
    now_ms = int(time.time() * 1000)
    removed, keys = unneeded(model, chunks, records, history, predictions_ms, now_ms)
    _remove(connection, keys)
    return removed


def unneeded(
    model: str,
    chunks: Iterable[ChunkAt],
    records: Mapping[int, Mapping[str, Any]],
    history: Sequence[Since],
    predictions_ms: int,
    now_ms: int,
) -> tuple[list[Pruned], list[str]]:
    """What can go of a model's chunks, by version, and their keys.

    A version is needed while the rollout names it for anything but a version of the past, while no step has been
    about it yet, and until the predictions that it made may be gone. A chunk is needed where its version is
    and its manifest names it.

    Args:
        chunks: of all models, as they are on the topic.
        records: the model's manifest records by version.
        history: the states of its rollout, in order.
    """
    whys = {version: why for version in records if (why := _past(version, history, predictions_ms, now_ms))}
    named = {
        version: {(c.partition, c.offset) for c in chunks_of(record)} for version, record in records.items()
    }
    found: dict[int, list[ChunkAt]] = {}
    for chunk in chunks:
        version = _version(chunk.key, model)
        if version is None:
            continue
        if version not in records:
            whys[version] = "no manifest names it"
        elif (chunk.partition, chunk.offset) not in named[version]:
            continue  # under a key that the version uses: removing it would remove the version's own
        if version in whys:
            found.setdefault(version, []).append(chunk)
    removed = [
        Pruned(version, len(gone), sum(c.size for c in gone), whys[version])
        for version, gone in sorted(found.items())
    ]
    return removed, [chunk.key for version in sorted(found) for chunk in found[version]]


def _past(version: int, history: Sequence[Since], predictions_ms: int, now_ms: int) -> str | None:
    """Why a version is of the past and nothing of it is kept; None where it is needed."""
    if not history or version not in history[-1].state.known or version in _in_use(history[-1].state):
        return None
    left_ms = None
    for before, after in itertools.pairwise(history):
        if version in _in_use(before.state) and version not in _in_use(after.state):
            left_ms = after.at_ms
    if left_ms is None:
        return "it was refused and has never scored"
    if now_ms - left_ms <= predictions_ms:
        return None
    return (
        f"it has not scored for {(now_ms - left_ms) // 86_400_000:,} days, longer than predictions are kept"
    )


def _in_use(state: RolloutState) -> set[int | None]:
    canary = None if state.canary is None else state.canary.version
    return {state.champion, state.previous, canary, *state.shadow, *state.candidates}


def _version(key: str, model: str) -> int | None:
    """The version of a key ``model/version/part/index`` of this model."""
    name, _, rest = key.partition("/")
    number = rest.partition("/")[0]
    return int(number) if name == model and number.isdecimal() else None


def _remove(connection: Connection, keys: Sequence[str]) -> None:
    """Tombstones: the topic is compacted."""
    from confluent_kafka import KafkaException, Producer

    producer = Producer(
        {**connection.kafka, "enable.idempotence": True, "partitioner": "murmur2_random", "log_level": 0}
    )
    failed: list[Any] = []
    for key in keys:
        producer.produce(
            lanes.CHUNKS,
            None,
            key.encode(),
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        producer.poll(0)
    if producer.flush(_TIMEOUT_S) or failed:
        what = KafkaException(failed[0]) if failed else "no answer"
        raise TailraceError(f"Kafka did not take all of it ({what}): run it again, which does the rest")
