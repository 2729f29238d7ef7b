"""Builds a package from a fitted estimator or an ONNX file, and data.

The same estimator and data give the same bytes: nothing here reads the clock or an unrecorded seed.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailrace.contracts.model_contract import ModelContract
from tailrace.kit.errors import TailraceError
from tailrace.models.card import model_card
from tailrace.models.columns import Array, Columns, taken
from tailrace.models.convert import Converted, Original, convert
from tailrace.models.errors import PackageRefused
from tailrace.models.fingerprint import library_versions
from tailrace.models.golden import check_golden, golden_bytes
from tailrace.models.golden_rows import golden_rows
from tailrace.models.load import LoadedModel, Predictions, load_model
from tailrace.models.manifest import Holdout, Input, Lineage, Manifest, Part, Tolerance, sha256
from tailrace.models.metrics import holdout_metrics
from tailrace.models.reference import (
    CategoryProfile,
    NumberProfile,
    Reference,
    category_profile,
    feature_profiles,
    number_profile,
)
from tailrace.models.table import class_text, columns_of, data_digest, feature_names, inputs_of, target_of

HOLDOUT_SHARE = 0.2


@dataclass(frozen=True)
class Package:
    """A manifest and its parts, not yet signed."""

    manifest: Manifest
    parts: Mapping[str, bytes]


@dataclass(frozen=True)
class Rows:
    """Labelled rows: columns as models are given them, and the truth (class texts, or float64)."""

    columns: Columns
    truth: Array

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: Array) -> Rows:
        return Rows(taken(self.columns, rows), self.truth[rows])


def build_package(
    estimator: Any,
    x: Any,
    y: Any,
    contract: ModelContract,
    *,
    version: int,
    sequence: int,
    holdout: tuple[Any, Any] | None = None,
    selection: str = "all rows given",
    seeds: Mapping[str, int] | None = None,
) -> Package:
    """A package from a scikit-learn estimator and the rows that it was fitted on, in the order of time.

    Args:
        estimator: a classifier with ``predict_proba`` or a regressor, of scikit-learn. Where it is not
        fitted yet,
            it is fitted here, on all rows but the holdout.
        x: data frame with columns named after the contract's features, or a matrix of all of them in its
        order. y: the truth by row.
        contract: the contract in force.
        version: number of the version.
        sequence: position among the model's publications.
        holdout: rows that the estimator has not seen. Without them the last fifth of the rows is held out; an
            estimator that was fitted on all rows is then judged by a copy of it fitted on the first four
            fifths.
        selection: how the rows were chosen, for the lineage.
        seeds: seeds that went into the estimator, for the lineage.

    Raises:
        TailraceError: the data does not fit the contract, or the estimator cannot be carried as data.
    """
    _refuse_pickle(estimator)
    inputs = inputs_of(feature_names(x, contract), x, contract)
    train = Rows(columns_of(x, inputs), target_of(y, contract))
    if len(train) != len(next(iter(train.columns.values()))) or len(train) < 10:
        raise TailraceError(
            f"X has {len(next(iter(train.columns.values())))} rows, y {len(train)}; 10 are needed"
        )
    estimator, judge, held = _judged(estimator, x, y, train, inputs, contract, holdout)
    original = Original(estimator, inputs, contract.task)
    classes = _classes(estimator, contract)
    impute = _impute(train.columns, inputs, contract)
    held = _servable(held, inputs, impute, contract)

    def as_manifest(
        kind: Any, feed: Any, missing: Any, used: tuple[Input, ...], output: str, tolerance: Tolerance
    ) -> Manifest:
        return Manifest(
            form=1,
            model=contract.model,
            version=version,
            sequence=sequence,
            task=contract.task,
            format=kind,
            feed=feed,
            inputs=used,
            missing_category=missing,
            output=output,
            classes=classes,
            positive=contract.positive_class,
            impute={i.name: impute[i.name] for i in used if i.name in impute},
            contract_digest=contract.digest,
            parts={name: Part(sha256="0" * 64, size=0) for name in ("model", "golden", "reference", "card")},
            tolerance=tolerance,
            conversion=None,
            holdout=Holdout(rows=0, metrics={}),
            lineage=Lineage(
                estimator=_described(estimator),
                data_digest=data_digest(train.columns, train.truth),
                rows=len(train),
                selection=selection,
                code=f"tailrace {importlib.metadata.version('tailrace')}",
                libraries=library_versions(),
                seeds=dict(seeds or {}),
            ),
        )

    converted = convert(original, held.columns, len(held), as_manifest)
    manifest = as_manifest(
        converted.format,
        converted.feed,
        converted.missing_category,
        converted.inputs,
        converted.output,
        converted.tolerance,
    )
    model = LoadedModel(manifest, load_model(manifest, converted.data))
    if judge is None:
        judged = model.predict(held.columns, len(held))
    else:
        judging = LoadedModel(manifest, _AsIs(Original(judge, inputs, contract.task), converted))
        judged = judging.predict(held.columns, len(held))
    return assemble(manifest, converted, train, held, judged, contract)


def assemble(
    manifest: Manifest,
    converted: Converted,
    train: Rows,
    held: Rows,
    judged: Predictions,
    contract: ModelContract,
) -> Package:
    """Completes a manifest with the parts that are computed from the data, and checks the result as
    scorers will.
    """
    model = LoadedModel(manifest, load_model(manifest, converted.data))
    metrics = holdout_metrics(judged, held.truth, manifest.positive)
    reference = Reference(
        rows=len(train),
        features=feature_profiles(train.columns, manifest.inputs),
        output_rows=len(held),
        score=_score_profile(judged),
        predicted_class=_class_profile(judged),
    )
    columns, rows = golden_rows(train.columns, manifest.inputs, manifest.impute, contract)
    golden = golden_bytes(columns, model.outputs(columns, rows))
    manifest = manifest.model_copy(
        update={"conversion": converted.conversion, "holdout": Holdout(rows=len(held), metrics=metrics)}
    )
    parts = {
        "model": converted.data,
        "golden": golden,
        "reference": reference.to_bytes(),
        "card": model_card(manifest, contract).encode(),
    }
    described = {name: Part(sha256=sha256(data), size=len(data)) for name, data in parts.items()}
    finished = Manifest.model_validate(manifest.model_copy(update={"parts": described}).model_dump())
    try:
        check_golden(LoadedModel(finished, load_model(finished, converted.data)), golden)
    except PackageRefused as refused:
        raise TailraceError(f"the model fails the checks that every scorer makes: {refused.reason}") from None
    return Package(finished, parts)


class _AsIs:
    """Runs an estimator itself where a package's model would run."""

    def __init__(self, original: Original, converted: Converted) -> None:
        self._original = original
        self._missing = converted.missing_category if converted.format == "skops" else "none"

    def run(self, columns: Columns, rows: int) -> Array:
        whole = dict(columns)
        for i in self._original.inputs:
            if i.name not in whole:
                whole[i.name] = np.full(rows, None if i.type == "category" else np.nan)
        return self._original.run(whole, rows, self._missing)


def _judged(
    estimator: Any,
    x: Any,
    y: Any,
    train: Rows,
    inputs: tuple[Input, ...],
    contract: ModelContract,
    holdout: tuple[Any, Any] | None,
) -> tuple[Any, Any | None, Rows]:
    """The fitted estimator, the one that is judged instead (None: itself), and the rows to judge on."""
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
        fitted = True
    except NotFittedError:
        fitted = False
    if holdout is not None:
        held = Rows(columns_of(holdout[0], inputs), target_of(holdout[1], contract))
        return (estimator if fitted else clone(estimator).fit(x, y)), None, held
    cut = len(train) - max(1, int(len(train) * HOLDOUT_SHARE))
    held = train.take(np.arange(cut, len(train)))
    early = clone(estimator).fit(x[:cut], y[:cut])
    return (estimator, early, held) if fitted else (early, None, held)


def _classes(estimator: Any, contract: ModelContract) -> tuple[str, ...]:
    if contract.task == "regression":
        return ()
    classes = tuple(class_text(c, contract) for c in estimator.classes_)
    absent = sorted(set(contract.classes) - set(classes))
    if absent or len(classes) != len(contract.classes):
        raise TailraceError(
            f"the estimator knows the classes {', '.join(classes)}, the contract "
            f"{', '.join(contract.classes)}: the training rows must hold every class"
        )
    return classes


def _impute(columns: Columns, inputs: tuple[Input, ...], contract: ModelContract) -> dict[str, float | str]:
    """The value by feature that stands in for a missing one: median (lower of two), or most frequent
    category.
    """
    found: dict[str, float | str] = {}
    for i in inputs:
        if contract.features[i.name].missing != "impute":
            continue
        column = columns[i.name]
        if i.type == "category":
            counts = [int(np.sum(column == c)) for c in i.categories]
            found[i.name] = i.categories[int(np.argmax(counts))]
            continue
        present = np.sort(column[~np.isnan(column)])
        if not len(present):
            raise TailraceError(f"{i.name} is to be imputed, and no training row has a value for it")
        found[i.name] = float(present[(len(present) - 1) // 2])
    return found


def _servable(
    rows: Rows, inputs: tuple[Input, ...], impute: dict[str, float | str], contract: ModelContract
) -> Rows:
    """The rows as a scorer would hand them to the model: imputed, without those that it would refuse."""
    columns = dict(rows.columns)
    keep = np.ones(len(rows), dtype=bool)
    for i in inputs:
        column = columns[i.name]
        absent = np.array([v is None for v in column]) if i.type == "category" else np.isnan(column)
        if i.name in impute:
            column = column.copy()
            column[absent] = impute[i.name]
            columns[i.name] = column
        elif contract.features[i.name].missing == "reject":
            keep &= ~absent
    if not keep.any():
        raise TailraceError("no row of the holdout has every feature that the contract insists on")
    return Rows(columns, rows.truth).take(np.flatnonzero(keep))


def _score_profile(judged: Predictions) -> NumberProfile | None:
    values = judged.value if judged.value is not None else judged.score
    return None if values is None else number_profile(values)


def _class_profile(judged: Predictions) -> CategoryProfile | None:
    chosen = judged.predicted_class
    return None if chosen is None else category_profile(chosen, judged.classes)


def _described(estimator: Any) -> str:
    """The estimator as one line of code, parameters that differ from their defaults named."""
    return " ".join(repr(estimator).split())[:1000]


def _refuse_pickle(estimator: Any) -> None:
    if isinstance(estimator, (bytes, bytearray, str)) or hasattr(estimator, "__fspath__"):
        raise TailraceError(
            "a pickled model runs code when it is loaded, so it is never published: load it yourself, where you "
            "trust it, and pass the estimator to tailrace.publish(estimator, X, y, model=...), which carries it as "
            "ONNX or skops; or export it to ONNX and use `tailrace publish model.onnx`"
        )
