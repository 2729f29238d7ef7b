"""Removes the chunks of packages that nothing needs any more. What a version was stays: its manifest, its steps.

First the rollout takes note, by a step that is signed for as any other, and from then on nothing can bring the version
back; only then do its chunks go. So it is never the package of a version that answers, whoever does what meanwhile.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tailrace.connection import Connection
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.fold_topics import fold_all
from tailrace.contracts.state.records import ControlRecords
from tailrace.control.commands import Wanted, ask_each, rollouts
from tailrace.control.deliver import deliver
from tailrace.errors import TailraceError
from tailrace.models.catalog import Catalog
from tailrace.models.package.open import chunks_of, known_to
from tailrace.models.rollout_state.fold import PRUNE, Rollouts, RolloutState
from tailrace.streaming.backends.kafka.reading import earliest_ms, read_all
from tailrace.streaming.records import Record


class ChunkAt(NamedTuple):
    key: str
    partition: int
    offset: int
    size: int


@dataclass(frozen=True)
class Since:
    """A state of a model's rollout, and when it came into force (append time, ms)."""

    at_ms: int
    state: RolloutState


class RetainedPredictions(NamedTuple):
    """Which predictions a lane keeps: for how long at least, and when the earliest that is there was written; None
    where there is none.
    """

    least_ms: int
    earliest_ms: int | None


@dataclass(frozen=True)
class Pruned:
    """What is to go of a version: the keys of its chunks and their size. ``why`` says why nothing needs it;
    ``published`` whether it is of a version at all.
    """

    version: int
    keys: tuple[str, ...]
    bytes: int
    why: str
    published: bool = True


def find_unneeded(connection: Connection, home: Path, contract: ModelContract) -> list[Pruned]:
    """What nothing needs of a model's packages, by version; ``home`` says whose manifests count.

    Raises:
        TailraceError: Kafka cannot be read.
    """
    model, lane = contract.model, lanes.Lane(contract.lane)
    # Chunks first: whose manifest is not there afterwards was never published, since both are one transaction.
    chunks = _chunks(connection)
    catalog, fold = Catalog(known_to(home)), Rollouts()
    fold_all(connection, catalog)
    state = ControlState(ControlRecords.of(connection), fold)
    history = [
        Since(taken.message.timestamp()[1], fold.state(model))
        for taken in state.each(read_all(connection, state.topics))
        if taken.came and taken.record is not None and taken.record["model"] == model
    ]
    verified = {version: catalog.verified(model, version) for version in catalog.versions(model)}
    records = {version: record for version, record in verified.items() if record is not None}
    kept = RetainedPredictions(
        contract.keep.predictions_ms, earliest_ms(connection, [lane.predictions, lane.shadow_predictions])
    )
    return unneeded(model, chunks, records, history, kept, int(time.time() * 1000))


def remove(connection: Connection, home: Path, model: str, pruned: Sequence[Pruned]) -> None:
    """Removes what was found. Where it is interrupted, it is found again and the rest removed.

    Raises:
        TailraceError: the rollout does not let go of a version, or Kafka does not take it.
    """
    let_go = rollouts(connection).state(model).pruned
    wanted = [Wanted(PRUNE, p.version, p.why) for p in pruned if p.published and p.version not in let_go]
    for answer in ask_each(connection, home, model, wanted) if wanted else []:
        if answer.refusal is not None:
            raise TailraceError(f"{answer.refusal}; nothing was removed")
    # The topic is compacted: in time the broker forgets what a key held before.
    tombstones = (Record(lanes.CHUNKS, None, key.encode()) for package in pruned for key in package.keys)
    deliver(connection, tombstones, "all of it")


def unneeded(
    model: str,
    chunks: Iterable[ChunkAt],
    records: Mapping[int, ModelManifestRecord],
    history: Sequence[Since],
    kept: RetainedPredictions,
    now_ms: int,
) -> list[Pruned]:
    """What can go of a model's chunks, by version.

    A version is needed while the rollout names it for anything but a version of the past, while no step has been
    about it yet, and until the predictions that it made are gone. A chunk is needed where its version is
    and its manifest names its key.

    Args:
        chunks: of all models, as they are on the topic.
        records: the model's manifest records by version.
        history: the states of its rollout, in order.
    """
    whys = {version: why for version in records if (why := _past(version, history, kept, now_ms))}
    # By key: a chunk elsewhere under a key that a manifest names cannot be removed without the one that it names.
    named = {
        f"{model}/{version}/{chunk.part}/{chunk.number}"
        for version, record in records.items()
        for chunk in chunks_of(record)
    }
    past: dict[tuple[int, bool], list[ChunkAt]] = {}
    for chunk in chunks:
        version = _version(chunk.key, model)
        if version is not None and (version in whys or chunk.key not in named):
            past.setdefault((version, version in whys), []).append(chunk)
    return [
        Pruned(
            version,
            tuple(dict.fromkeys(chunk.key for chunk in gone)),
            sum(chunk.size for chunk in gone),
            whys.get(version, "no manifest names it"),
            published,
        )
        for (version, published), gone in sorted(past.items())
    ]


def _past(version: int, history: Sequence[Since], kept: RetainedPredictions, now_ms: int) -> str | None:
    """Why a version is of the past and nothing of it is kept; None where it is needed."""
    if not history or version not in history[-1].state.known or version in history[-1].state.in_use:
        return None
    left_ms = None
    for before, after in itertools.pairwise(history):
        if version in before.state.in_use and version not in after.state.in_use:
            left_ms = after.at_ms
    if version in history[-1].state.pruned:
        return "it was let go before"
    if left_ms is None:
        return "it was refused and has never scored"
    may_be_there = kept.earliest_ms is not None and kept.earliest_ms <= left_ms
    if may_be_there or now_ms - left_ms <= kept.least_ms:
        return None
    return f"it has not scored since {_time(left_ms)}, and no prediction from before is kept"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _version(key: str, model: str) -> int | None:
    """The version of a key ``model/version/part/index`` of this model."""
    name, _, rest = key.partition("/")
    number = rest.partition("/")[0]
    return int(number) if name == model and number.isdecimal() else None


def _chunks(connection: Connection) -> list[ChunkAt]:
    """What is on the topic and was not removed behind it."""
    by_key: dict[tuple[int, str], list[ChunkAt]] = {}
    for message in read_all(connection, [lanes.CHUNKS]):
        name, value = message.key(), message.value()
        if name is None:
            continue
        key = name.decode(errors="replace")
        if value is None:
            by_key.pop((message.partition(), key), None)
        else:
            chunk = ChunkAt(key, message.partition(), message.offset(), len(value))
            by_key.setdefault((chunk.partition, key), []).append(chunk)
    return list(itertools.chain.from_iterable(by_key.values()))
