"""Trains a first model on a file: ``tailrace train``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import UsageError
from tailrace.files.contents import content_digest
from tailrace.files.data_mapping import DataMapping
from tailrace.files.rows import read_rows
from tailrace.models.columns import column_of
from tailrace.models.manifest import TrainedOn
from tailrace.models.package.build import HOLDOUT_SHARE, BuildChecks, Package, build_package
from tailrace.models.package.rows import LEAST_ROWS
from tailrace.models.trainable import refuse_untrainable
from tailrace.templates.team_templates import find_template
from tailrace.templates.template import LearningTask, Template

EARLIEST_SHARE = 0.2
SEED = 0


@dataclass(frozen=True)
class TrainingRows:
    """Labelled rows of a file in order of event time, and how they were chosen."""

    frame: pl.DataFrame
    selection: str
    trained_on: TrainedOn


def train(
    file: Path,
    mapping: DataMapping | None,
    contract: ModelContract,
    *,
    until_ms: int | None = None,
    where: str | None = None,
    allow_inverted: bool = False,
    say: Callable[[str], None] = lambda _text: None,
) -> Package:
    """Fits the contract's template on rows of a file; the last fifth of them in time is the holdout.

    Args:
        file: CSV or Parquet.
        mapping: where its fields are.
        contract: the contract in force.
        until_ms: only rows up to this event time.
        where: only rows where this SQL condition over the file's columns is true.
            Without either: the earliest fifth of the rows.
        allow_inverted: takes a version that ranks the holdout the wrong way round.
        say: called with what goes on.

    Raises:
        TailraceError: too few rows, or a class missing among them.
        TemplateRefused: the contract's template is a team's, and not here.
    """
    from sklearn.base import BaseEstimator
    from threadpoolctl import threadpool_limits

    say(f"reading {file.name}")
    rows = training_rows(file, mapping, contract, until_ms, where, say)
    held = max(1, int(rows.frame.height * HOLDOUT_SHARE))
    say(f"training on {rows.selection}, the last {held:,} of them ({HOLDOUT_SHARE:.0%}) held out")
    x, y = frame_of(rows.frame, contract), rows.frame[contract.target.name].to_numpy()
    template, origin = find_template(contract.training.template)
    refuse_untrainable(template, x, y, contract)
    say(f"fitting {contract.training.template}, then converting and checking it: this may take a while")
    with threadpool_limits(limits=1):  # another number of threads adds up in another order
        estimator = unfitted(template, contract, options=contract.training.options)
        # What learns online goes over the rows once, so it is fitted here, on those that are not held out.
        online = not isinstance(estimator, BaseEstimator)
        cut = len(y) - max(1, int(len(y) * HOLDOUT_SHARE)) if online else len(y)
        package = build_package(
            estimator.fit(x[:cut], y[:cut]) if online else estimator,
            x[:cut],
            y[:cut],
            contract,
            holdout=(x[cut:], y[cut:]) if online else None,
            selection=rows.selection,
            trained_on=rows.trained_on,
            template=origin,
            seeds={"random_state": SEED},
            checks=BuildChecks(allow_inverted=allow_inverted),
        )
    if why := _why_fewer(package, held):
        say(why)
    return package


def _why_fewer(package: Package, held: int) -> str:
    """Why a version is judged by fewer rows than were held out; empty where it is not."""
    manifest = package.manifest
    judged, calibrated = manifest.holdout.rows, manifest.calibration.rows if manifest.calibration else 0
    if judged == held:
        return ""
    parts = [f"{calibrated:,} fitted the calibration"] if calibrated else []
    if left := held - judged - calibrated:
        parts.append(f"{left:,} could not be scored, as the contract refuses them")
    return (
        f"of the {held:,} rows held out {' and '.join(parts)}: the version is judged by the other {judged:,}"
    )


def training_rows(
    file: Path,
    mapping: DataMapping | None,
    contract: ModelContract,
    until_ms: int | None = None,
    where: str | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> TrainingRows:
    """The rows to train on, as ``train`` chooses them."""
    labelled, rows = labelled_rows(file, mapping, contract, where, say)
    time = contract.event_time.name
    chosen = labelled if where is not None else labelled.head(int(labelled.height * EARLIEST_SHARE))
    if until_ms is not None:
        chosen = labelled.filter(pl.col(time) <= until_ms)
    if chosen.height < LEAST_ROWS:
        what = f"{file}: {chosen.height} labelled rows are too few to train on"
        have = f"({labelled.height} of {rows} rows have a label)"
        raise UsageError(f"{what} {have}: choose more with --until or --where")
    first, last = int(chosen[time][0]), int(chosen[time][-1])
    which = f"where {where}, " if where else ("" if until_ms else f"the earliest {EARLIEST_SHARE:.0%}, ")
    selection = f"{chosen.height:,} rows of {file.name} ({which}{_day(first)} to {_day(last)})"
    trained_on = TrainedOn(
        file=file.name, where=where, first_ms=first, last_ms=last, content=content_digest(file)
    )
    return TrainingRows(chosen, selection, trained_on)


def labelled_rows(
    file: Path,
    mapping: DataMapping | None,
    contract: ModelContract,
    where: str | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> tuple[pl.DataFrame, int]:
    """The rows of a file that have a label, in order of event time; and how many it has in all."""
    rows = read_rows(file, mapping, contract, where=where, say=say)
    labelled = rows.filter(pl.col(contract.target.name).is_not_null())
    return as_scored(labelled, contract, say), rows.height


def as_scored(rows: pl.DataFrame, contract: ModelContract, say: Callable[[str], None]) -> pl.DataFrame:
    """The rows with categories as scorers hand them to a model.

    What a contract does not know becomes what its ``unseen`` says; where that is ``reject``, a scorer refuses the row,
    and it is left out here too, which is said.
    """
    for name, feature in contract.features.items():
        if feature.type != "category":
            continue
        unseen = (~pl.col(name).is_in(list(feature.categories or ()))).fill_null(value=False)
        strangers = rows.filter(unseen)
        if strangers.is_empty():
            continue
        shown = ", ".join(repr(text) for text in strangers[name].unique(maintain_order=True).to_list()[:5])
        if feature.unseen == "reject":
            say(f"{strangers.height} rows are left out: the contract's {name} has no category {shown}")
            rows = rows.filter(~unseen)
        else:
            say(
                f"{strangers.height} rows have {shown} in {name}: it is taken for {feature.unseen!r}, as in scoring"
            )
            rows = rows.with_columns(pl.when(unseen).then(pl.lit(feature.unseen)).otherwise(name).alias(name))
    return rows


def learning_task(contract: ModelContract) -> LearningTask:
    """The contract's features as templates know them."""
    texts = {n: tuple(f.categories or ()) for n, f in contract.features.items() if f.type == "category"}
    return LearningTask(contract.task, tuple(n for n in contract.features if n not in texts), texts)


def unfitted(
    template: Template, contract: ModelContract, seed: int = SEED, options: Mapping[str, Any] | None = None
) -> Any:
    """What has a ``fit(rows, truth)``: the template under these options, or its own defaults.

    Raises:
        UsageError: the options do not fit the template.
    """
    try:
        return template.unfitted(learning_task(contract), seed, options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(("training", "options", *map(str, first["loc"])))
        raise UsageError(f"{where}: {first['msg']}: correct it in the contract of {contract.model}") from None


def frame_of(rows: pl.DataFrame, contract: ModelContract) -> Any:
    """The features as a pandas frame: numbers as floats with NaN, categories as objects with None."""
    import pandas as pd

    return pd.DataFrame(
        {
            name: pd.Series(column_of(rows[name].to_list(), feature.type), dtype=object)
            if feature.type == "category"
            else rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
            for name, feature in contract.features.items()
        }
    )


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")
