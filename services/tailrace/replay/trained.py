"""Which rows of a file the champion has seen in training, by its lineage."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tailrace.connection import Connection
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.state.fold_topics import fold_all
from tailrace.errors import TailraceError
from tailrace.files.contents import content_digest
from tailrace.files.data_mapping import DataMapping
from tailrace.files.rows import read_rows
from tailrace.models.catalog import Catalog
from tailrace.models.manifest import Manifest, TrainedOn
from tailrace.models.package.open import known_to
from tailrace.models.rollout_state.fold import Rollouts


def champion_manifest(connection: Connection, home: Path, model: str) -> Manifest | None:
    """The manifest of the version that answers now; None where none does, or nobody whom ``home`` trusts, or has
    trusted, has signed it.
    """
    catalog, rollouts = Catalog(known_to(home)), Rollouts()
    fold_all(connection, catalog, rollouts)
    champion = rollouts.state(model).champion
    record = None if champion is None else catalog.verified(model, champion)
    return None if record is None else Manifest.from_bytes(record["manifest"])


def count_trained(
    trained_on: TrainedOn | None,
    file: Path,
    mapping: DataMapping | None,
    contract: ModelContract,
    rows: pl.DataFrame,
) -> int:
    """How many of the file's rows are among those that a version was fitted or held out on.

    Files are told apart by their content; a version of before that was known of names theirs.
    """
    if trained_on is None or not _is_of(trained_on, file):
        return 0
    time = pl.col(contract.event_time.name)
    seen = rows.filter((time >= trained_on.first_ms) & (time <= trained_on.last_ms))
    if trained_on.where is not None and len(seen):
        try:
            chosen = read_rows(file, mapping, contract, where=trained_on.where)
        except TailraceError:
            return 0  # another file under that name: it lacks what the condition is about
        seen = seen.filter(pl.col("request_id").is_in(chosen["request_id"].implode()))
    return len(seen)


def _is_of(trained_on: TrainedOn, file: Path) -> bool:
    if trained_on.content is None:
        return trained_on.file == file.name
    return trained_on.content == content_digest(file)
