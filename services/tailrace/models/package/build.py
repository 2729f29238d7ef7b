"""Builds a package from a scikit-learn estimator or an ONNX model, and labelled rows.

The same model and rows give the same bytes: nothing here reads the clock or an unrecorded seed.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.class_names import class_text
from tailrace.models.columns import Array, Columns, values_of
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.convert import convert
from tailrace.models.formats.converted import Converted
from tailrace.models.formats.foreign import refuse_object
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.formats.onnx.read import read_onnx
from tailrace.models.formats.original import Original
from tailrace.models.guards.calibration import Calibration, fit_calibration
from tailrace.models.guards.conformal import conformal_quantiles, nonconformity
from tailrace.models.guards.domain import TrainingDomain, fit_domain
from tailrace.models.inputs import Input
from tailrace.models.manifest import PARTS, Holdout, Lineage, Manifest, Part, TrainedOn, sha256
from tailrace.models.package.card import model_card
from tailrace.models.package.fingerprint import library_versions
from tailrace.models.package.golden import check_golden, golden_bytes
from tailrace.models.package.golden_rows import golden_rows, rows_between
from tailrace.models.package.holdout_metrics import holdout_metrics
from tailrace.models.package.rows import LabelledRows, impute_values, imputed, servable
from tailrace.models.package.table import columns_of, data_digest, feature_names, inputs_of, target_of
from tailrace.models.predictions import Predictions
from tailrace.models.reference import Reference, category_profile, feature_profiles, number_profile
from tailrace.templates.team_templates import TemplateOrigin

HOLDOUT_SHARE = 0.2
LEAST_ROWS = 10
STRESS_ROWS = 512
BACKGROUND_ROWS = 32


@dataclass(frozen=True)
class Package:
    """A manifest and its parts, not yet signed."""

    manifest: Manifest
    parts: Mapping[str, bytes]

    def numbered(self, version: int, sequence: int) -> Package:
        """The same package as another version."""
        numbers = {"version": version, "sequence": sequence}
        return Package(self.manifest.model_copy(update=numbers), self.parts)


def build_package(
    estimator: Any,
    x: Any,
    y: Any,
    contract: ModelContract,
    *,
    holdout: tuple[Any, Any] | None = None,
    selection: str = "all rows given",
    trained_on: TrainedOn | None = None,
    template: TemplateOrigin | None = None,
    seeds: Mapping[str, int] | None = None,
) -> Package:
    """A package, numbered 1, from a scikit-learn estimator and its training rows in the order of time.

    Args:
        estimator: a classifier with ``predict_proba`` or a regressor. One that is not fitted is fitted here,
            on all rows but the holdout.
        x: data frame with columns named after features of the contract, or a matrix of all of them in its order.
        y: the truth by row.
        contract: the contract in force.
        holdout: x and y that the estimator has not seen. Without them the last fifth of the rows is the
            holdout; an estimator that was fitted beforehand is judged by a copy that is fitted without it.
        selection: how the rows were chosen, in words, for the lineage.
        trained_on: how they were chosen, where they are rows of a file.
        template: where the template is from, if a team brought it.
        seeds: the seeds that went into the estimator, for the lineage.

    Raises:
        TailraceError: the rows do not fit the contract, or the estimator cannot be carried as data; says why.
    """
    refuse_object(estimator)
    inputs = inputs_of(feature_names(x, contract), x, contract)
    train = _rows(x, y, inputs, contract)
    is_fitted = _is_fitted(estimator)
    if is_fitted:
        Original(estimator, inputs, contract.task)  # says what does not fit before anything is computed
    if holdout is not None:
        fitted = judge = estimator if is_fitted else _fit(estimator, x, y)
        held = _rows(*holdout, inputs, contract)
    else:
        cut = len(train) - max(1, int(len(train) * HOLDOUT_SHARE))
        judge = _fit(estimator, x[:cut], y[:cut])
        fitted, held = (estimator if is_fitted else judge), train.take(np.arange(cut, len(train)))
    original, classes = Original(fitted, inputs, contract.task), _classes(fitted, contract)
    _classes(judge, contract)  # the rows before the holdout may lack one
    impute = impute_values(train.columns, inputs, contract)
    held = servable(held, inputs, impute, contract)
    described = " ".join(repr(fitted).split())[:1000]
    draft = _Draft(contract, train, impute, classes, described, selection, trained_on, template, seeds)
    tried = _tried_rows(held, train, inputs, impute, contract)
    converted = convert(original, tried, len(next(iter(tried.values()))), draft.manifest)
    as_judged = _Judge(judge, inputs, contract.task)
    judged = LoadedModel(draft.manifest(converted), as_judged).predict(held.columns, len(held))
    before = train if holdout is not None else train.take(np.arange(cut))
    domain = draft.domain(before.columns, held.columns, converted.inputs)
    calibration = fit_calibration(judged, held.truth, contract.positive_class)
    return draft.finish(converted, held, judged, domain, calibration)


def build_from_onnx(
    data: bytes, x: Any, y: Any, contract: ModelContract, *, selection: str = "holdout file"
) -> Package:
    """A package, numbered 1, from an ONNX model made elsewhere and labelled rows that it has not seen.

    The model takes either one input per feature (named after it, [rows, 1]) or one matrix of floats of all
    features in the contract's order, and gives probabilities by class, the positive class's alone, or values.
    The reference profile is that of the rows given. Its probabilities are taken as they are: whoever made the
    file elsewhere has said what they mean.

    Raises:
        TailraceError: the model does not fit the contract, or the rows do not; says why.
    """
    everything = inputs_of(feature_names(x, contract), x, contract)
    try:
        converted, classes, producer = read_onnx(data, everything, contract)
    except PackageRefused as refused:
        raise TailraceError(f"the ONNX model cannot be published: {refused.reason}") from None
    rows = _rows(x, y, converted.inputs, contract)
    impute = impute_values(rows.columns, converted.inputs, contract)
    held = servable(rows, converted.inputs, impute, contract)
    draft = _Draft(contract, rows, impute, classes, producer, selection)
    manifest = draft.manifest(converted)
    try:
        judged = LoadedModel(manifest, load_model(manifest, converted.data)).predict(held.columns, len(held))
    except Exception as error:  # a foreign model may raise anything
        raise TailraceError(f"the ONNX model does not run on the holdout: {error}") from error
    half = len(held) // 2
    first, second = (held.take(rows).columns for rows in np.split(np.arange(len(held)), [half]))
    domain = draft.domain(first, second, converted.inputs) if half else None
    return draft.finish(converted, held, judged, domain, None)


@dataclass(frozen=True)
class _Draft:
    """What is known about a package before its model part is."""

    contract: ModelContract
    train: LabelledRows
    impute: Mapping[str, float | str]
    classes: tuple[str, ...]
    estimator: str
    selection: str
    trained_on: TrainedOn | None = None
    template: TemplateOrigin | None = None
    seeds: Mapping[str, int] | None = None

    def manifest(self, converted: Converted) -> Manifest:
        """A manifest under which the model part can be run; parts and metrics are still missing."""
        carried = {name: value for name, value in vars(converted).items() if name != "data"}
        return Manifest(
            form=1,
            model=self.contract.model,
            version=1,
            sequence=1,
            task=self.contract.task,
            **carried,
            classes=self.classes,
            positive=self.contract.positive_class,
            impute={i.name: self.impute[i.name] for i in converted.inputs if i.name in self.impute},
            contract_digest=self.contract.digest,
            parts={name: Part(sha256="0" * 64, size=0) for name in PARTS},
            holdout=Holdout(rows=0, metrics={}),
            lineage=Lineage(
                estimator=self.estimator,
                data_digest=data_digest(self.train.columns, self.train.truth),
                rows=len(self.train),
                selection=self.selection,
                trained_on=self.trained_on,
                code=f"tailrace {importlib.metadata.version('tailrace')}",
                libraries=library_versions(),
                seeds=dict(self.seeds or {}),
                template=self.template,
            ),
        )

    def domain(self, seen: Columns, held: Columns, inputs: tuple[Input, ...]) -> TrainingDomain:
        """Where the rows seen lie, judged by the others; both as a scorer hands them to the model."""
        marked = [i.name for i in inputs if self.contract.features[i.name].missing == "pass"]
        rule = self.contract.guardrails.domain
        levels = () if rule is None else (1.0 - rule.false_alarms,)
        return fit_domain(imputed(seen, inputs, self.impute), held, inputs, marked, *levels)

    def finish(
        self,
        converted: Converted,
        held: LabelledRows,
        judged: Predictions,
        domain: TrainingDomain | None,
        calibration: Calibration | None,
    ) -> Package:
        """Computes the parts, and makes the checks that every scorer will make.

        Metrics and quantiles are of calibrated predictions, of rows that the calibration has not seen.
        """
        manifest = self.manifest(converted).model_copy(update={"calibration": calibration})
        model = LoadedModel(manifest, load_model(manifest, converted.data))
        if calibration is not None and judged.probabilities is not None:
            later = np.arange(calibration.rows, len(held))
            held = held.take(later)
            judged = model.predictions(model.calibrated(judged.probabilities[later]))
        metrics = holdout_metrics(judged, held.truth, manifest.positive)
        coverage = self.contract.guardrails.coverage
        levels = () if coverage is None else (coverage,)
        quantiles = conformal_quantiles(nonconformity(judged, held.truth), *levels)
        holdout = Holdout(rows=len(held), metrics=metrics)
        manifest = manifest.model_copy(update={"holdout": holdout, "conformal": quantiles})
        seen = imputed(self.train.columns, manifest.inputs, self.impute)
        columns, rows = golden_rows(seen, manifest.inputs, self.contract)
        parts = {
            "model": converted.data,
            "golden": golden_bytes(columns, model.outputs(columns, rows)),
            "reference": self._reference(manifest, judged, len(held), domain).to_bytes(),
            "card": model_card(manifest, self.contract).encode(),
        }
        digests = {name: Part(sha256=sha256(data), size=len(data)) for name, data in parts.items()}
        manifest = manifest.model_copy(update={"parts": digests})
        try:
            check_golden(LoadedModel(manifest, load_model(manifest, converted.data)), parts["golden"])
            manifest = Manifest.from_bytes(manifest.to_bytes())
        except (PackageRefused, ValueError) as refused:
            raise TailraceError(f"the model fails the checks that every scorer makes: {refused}") from None
        return Package(manifest, parts)

    def _reference(
        self, manifest: Manifest, judged: Predictions, rows: int, domain: TrainingDomain | None
    ) -> Reference:
        seen = imputed(self.train.columns, manifest.inputs, self.impute)
        chosen = np.unique(np.linspace(0, len(self.train) - 1, BACKGROUND_ROWS).astype(np.int64))
        score = judged.value if judged.value is not None else judged.score
        named = judged.predicted_class
        return Reference(
            rows=len(self.train),
            features=feature_profiles(self.train.columns, manifest.inputs),
            output_rows=rows,
            score=None if score is None else number_profile(score),
            predicted_class=None if named is None else category_profile(named, judged.classes),
            domain=domain,
            background={i.name: tuple(values_of(seen[i.name][chosen])) for i in manifest.inputs},
        )


class _Judge:
    """Runs an estimator itself where a package's model would run."""

    def __init__(self, estimator: Any, inputs: tuple[Input, ...], task: str) -> None:
        self._original = Original(estimator, inputs, task)
        self._inputs = inputs

    def run(self, columns: Columns, rows: int) -> Array:
        """An input that the package's model has no use for cannot matter: any value stands for it."""
        fills: dict[str, Any] = {i.name: i.categories[0] if i.categories else 0.0 for i in self._inputs}
        unused = {
            name: np.full(rows, fill, object if isinstance(fill, str) else float)
            for name, fill in fills.items()
            if name not in columns
        }
        return self._original.run({**columns, **unused}, rows)


def _rows(x: Any, y: Any, inputs: tuple[Input, ...], contract: ModelContract) -> LabelledRows:
    columns, truth = columns_of(x, inputs), target_of(y, contract)
    rows = len(next(iter(columns.values())))
    if rows != len(truth):
        raise TailraceError(f"X has {rows} rows, y has {len(truth)}")
    if rows < LEAST_ROWS:
        raise TailraceError(f"{rows} rows are too few to judge a model by; {LEAST_ROWS} are the least")
    return LabelledRows(columns, truth)


def _tried_rows(
    held: LabelledRows,
    train: LabelledRows,
    inputs: tuple[Input, ...],
    impute: Mapping[str, float | str],
    contract: ModelContract,
) -> Columns:
    """Where a conversion is compared with its original: the holdout, edges, and between the values."""
    seen = imputed(train.columns, inputs, impute)
    edges, _ = golden_rows(seen, inputs, contract)
    between = rows_between(seen, inputs, STRESS_ROWS)
    return {i.name: np.concatenate([c[i.name] for c in (held.columns, edges, between)]) for i in inputs}


def _classes(estimator: Any, contract: ModelContract) -> tuple[str, ...]:
    """The classes in the order of the estimator's probabilities, as the contract spells them."""
    if contract.task == "regression":
        return ()
    classes = tuple(class_text(c, contract) for c in estimator.classes_)
    if sorted(classes) != sorted(contract.classes):
        raise TailraceError(
            f"the estimator knows the classes {', '.join(classes)}, the contract says "
            f"{', '.join(contract.classes)}: the training rows must hold every class, also without the last "
            "fifth, which is held out (or pass holdout=(X, y))"
        )
    return classes


def _is_fitted(estimator: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    except (TypeError, AttributeError) as error:
        raise TailraceError(
            f"{type(estimator).__name__} is not a scikit-learn estimator: export it to ONNX and use "
            "`tailrace publish model.onnx`, or derive it from scikit-learn's BaseEstimator"
        ) from error
    return True


def _fit(estimator: Any, x: Any, y: Any) -> Any:
    """A copy of the estimator, fitted."""
    from sklearn.base import clone

    try:
        return clone(estimator).fit(x, y)
    except Exception as error:  # whatever an estimator of somebody's raises
        raise TailraceError(
            f"{type(estimator).__name__} cannot be fitted on {len(y):,} of the rows ({error}); to judge one that "
            "is fitted, pass holdout=(X, y) with rows that it has not seen"
        ) from error
