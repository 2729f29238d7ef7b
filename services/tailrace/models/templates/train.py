"""Trains a first model on a file: ``tailrace train``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tailrace.contracts.language.data_file import DataMapping, read_rows
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import Template
from tailrace.errors import UsageError
from tailrace.models.columns import Array, column_of
from tailrace.models.manifest import TrainedOn
from tailrace.models.package.build import HOLDOUT_SHARE, LEAST_ROWS, Package, build_package
from tailrace.models.templates.river_linear import fit_river_linear
from tailrace.models.templates.scaled_columns import numbers_and_texts, scaled

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
    say: Callable[[str], None] = lambda _text: None,
) -> Package:
    """Fits the contract's template on rows of a file; the last fifth of them in time is the holdout.

    Args:
        file: CSV file.
        mapping: where its fields are.
        contract: the contract in force.
        until_ms: only rows up to this event time.
        where: only rows where this SQL condition over the file's columns is true.
            Without either: the earliest fifth of the rows.
        say: told what goes on.

    Raises:
        TailraceError: too few rows, or a class missing among them.
    """
    from threadpoolctl import threadpool_limits

    rows = training_rows(file, mapping, contract, until_ms, where)
    say(f"training on {rows.selection}, the last {HOLDOUT_SHARE:.0%} of them held out")
    x, y = frame_of(rows.frame, contract), rows.frame[contract.target.name].to_numpy()
    with threadpool_limits(limits=1):  # another number of threads adds up in another order
        online = contract.training.template == "river-linear"
        cut = len(y) - max(1, int(len(y) * HOLDOUT_SHARE)) if online else len(y)
        return build_package(
            fit_river_linear(x[:cut], y[:cut], contract) if online else template(contract),
            x[:cut],
            y[:cut],
            contract,
            holdout=(x[cut:], y[cut:]) if online else None,
            selection=rows.selection,
            trained_on=rows.trained_on,
            seeds={"random_state": SEED},
        )


def training_rows(
    file: Path,
    mapping: DataMapping | None,
    contract: ModelContract,
    until_ms: int | None = None,
    where: str | None = None,
) -> TrainingRows:
    """The rows to train on, as ``train`` chooses them."""
    labelled, rows = labelled_rows(file, mapping, contract, where)
    time = contract.event_time.name
    if until_ms is not None:
        chosen = labelled.filter(pl.col(time) <= until_ms)
    elif where is not None:
        chosen = labelled
    else:
        chosen = labelled.head(int(labelled.height * EARLIEST_SHARE))
    if chosen.height < LEAST_ROWS:
        raise UsageError(
            f"{file}: {chosen.height} labelled rows are too few to train on ({labelled.height} of "
            f"{rows} rows have a label): choose more with --until or --where"
        )
    first, last = int(chosen[time][0]), int(chosen[time][-1])
    said = f"where {where}, " if where else ("" if until_ms else f"the earliest {EARLIEST_SHARE:.0%}, ")
    selection = f"{chosen.height:,} rows of {file.name} ({said}{_day(first)} to {_day(last)})"
    return TrainingRows(
        chosen, selection, TrainedOn(file=file.name, where=where, first_ms=first, last_ms=last)
    )


def labelled_rows(
    file: Path, mapping: DataMapping | None, contract: ModelContract, where: str | None = None
) -> tuple[pl.DataFrame, int]:
    """The rows of a file that have a label, in order of event time; and how many it has in all."""
    rows = read_rows(file, mapping, contract, where=where)
    return rows.filter(pl.col(contract.target.name).is_not_null()), rows.height


def fitted(name: Template, x: Any, y: Array, contract: ModelContract, seed: int = SEED) -> Any:
    """A template, fitted on rows in the order of time; river's learner as the scikit-learn model that equals it."""
    if name == "river-linear":
        return fit_river_linear(x, y, contract)
    return template(contract, name, seed).fit(x, y)


def template(contract: ModelContract, name: Template | None = None, seed: int = SEED) -> Any:
    """A template, by default the contract's, unfitted: a pipeline of imputation, encoding, scaling and the model.

    Logistic regression becomes ridge regression where the target is a number. Gradient boosting takes missing
    values and categories as they are. (``river-linear`` is fitted in its own way: see ``fitted``.)
    """
    from sklearn.ensemble import (
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    number = contract.task == "regression"
    name = name or contract.training.template
    if name == "hist-gradient-boosting":
        boosting = HistGradientBoostingRegressor if number else HistGradientBoostingClassifier
        texts = [f.type == "category" for f in contract.features.values()]
        coded = sorted(texts)  # _ordinal() puts them last
        return make_pipeline(_ordinal(contract), boosting(random_state=seed, categorical_features=coded))
    if name == "random-forest":
        forest = RandomForestRegressor if number else RandomForestClassifier
        return make_pipeline(scaled(contract), forest(random_state=seed, min_samples_leaf=5))
    return make_pipeline(scaled(contract), Ridge() if number else LogisticRegression(max_iter=1000))


def _ordinal(contract: ModelContract) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    numbers, texts = numbers_and_texts(contract)
    known = [contract.features[n].categories or [] for n in texts]
    codes = OrdinalEncoder(categories=known, handle_unknown="use_encoded_value", unknown_value=np.nan)
    return ColumnTransformer([("numbers", "passthrough", numbers), ("categories", codes, texts)])


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
