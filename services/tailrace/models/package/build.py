"""Builds a package from a scikit-learn estimator or an ONNX model, and labelled rows.

The same model and rows give the same bytes: nothing here reads the clock or an unrecorded seed.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.files.data_mapping import DataMapping
from tailrace.models.class_names import ClassNames
from tailrace.models.columns import Columns, values_of
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.compare import MOST_DIFFERENCE
from tailrace.models.formats.convert import convert
from tailrace.models.formats.converted import Converted
from tailrace.models.formats.foreign import refuse_object
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.formats.onnx.outputs import AS_THE_MODEL_SAYS, OutputChoice
from tailrace.models.formats.onnx.read import read_onnx
from tailrace.models.formats.original import Original
from tailrace.models.formats.skops.run import estimator_table
from tailrace.models.guards.calibration import Calibration, fit_calibration
from tailrace.models.guards.conformal import conformal_quantiles, nonconformity
from tailrace.models.guards.domain import TrainingDomain, fit_domain
from tailrace.models.inputs import Input
from tailrace.models.manifest import PARTS, Holdout, Lineage, Manifest, Part, TrainedOn, sha256
from tailrace.models.package.card import model_card
from tailrace.models.package.fingerprint import library_versions
from tailrace.models.package.fit import EstimatorModel, fit, is_fitted
from tailrace.models.package.foreign_outputs import outputs_and_classes, refuse_raw_scores
from tailrace.models.package.golden import check_golden, golden_bytes
from tailrace.models.package.golden_rows import golden_rows, tried_rows
from tailrace.models.package.holdout_metrics import holdout_metrics
from tailrace.models.package.ranking import refuse_wrong_order
from tailrace.models.package.rows import LabelledRows, impute_values, imputed, labelled, servable
from tailrace.models.package.served import served_alike
from tailrace.models.package.table import data_digest, feature_names, inputs_of, table_of, values_of_target
from tailrace.models.predictions import Predictions
from tailrace.models.reference import Reference, category_profile, feature_profiles, number_profile
from tailrace.templates.team_templates import TemplateOrigin

HOLDOUT_SHARE = 0.2
BACKGROUND_ROWS = 32


@dataclass(frozen=True)
class BuildChecks:
    """What a publisher has decided about what is checked.

    Attributes:
        conversion_tolerance: largest difference of a converted model's outputs, as a share of their spread.
        calibrate: ``never`` leaves probabilities as they are, whatever the contract says.
        allow_inverted: publishes a version that ranks the holdout the wrong way round.
    """

    conversion_tolerance: float = MOST_DIFFERENCE
    calibrate: Literal["never"] | None = None
    allow_inverted: bool = False


CHECKED = BuildChecks()


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
    mapping: DataMapping | None = None,
    checks: BuildChecks = CHECKED,
) -> Package:
    """A package, numbered 1, from a scikit-learn estimator and its training rows in the order of time.

    Args:
        estimator: a classifier with ``predict_proba`` or a regressor. One that is not fitted is fitted here,
            on all rows but the holdout.
        x: data frame with columns named after features of the contract, or as ``mapping`` has them; or a matrix of all
            of them in the contract's order.
        y: the truth by row.
        contract: the contract in force.
        holdout: x and y that the estimator has not seen. Without them the last fifth of the rows is the
            holdout; an estimator that was fitted beforehand is judged by a copy that is fitted without it.
        selection: how the rows were chosen, in words, for the lineage.
        trained_on: how they were chosen, where they are rows of a file.
        template: where the template is from, if a team brought it.
        seeds: the seeds that went into the estimator, for the lineage.
        mapping: what a data file calls columns and classes.
        checks: what the publisher has decided about what is checked.

    Raises:
        TailraceError: the rows do not fit the contract, the estimator answers requests in another way than rows of
            ``x``, ranks the holdout the wrong way round, or cannot be carried as data; says why.
    """
    refuse_object(estimator)
    x = table_of(x)
    inputs = inputs_of(feature_names(x, contract, mapping), x, contract)
    was_fitted = is_fitted(estimator)
    if was_fitted:
        Original(estimator, inputs, contract.task)  # says what does not fit before anything is computed
    held_y = () if holdout is None else values_of_target(holdout[1])
    known = [*values_of_target(y), *held_y, *getattr(estimator, "classes_", ())]
    names = ClassNames(contract, mapping.target if mapping else None, known)
    train = labelled(x, y, inputs, contract, names)
    cut = len(train) if holdout is not None else len(train) - max(1, int(len(train) * HOLDOUT_SHARE))
    given = _Given(x, y, train, inputs, contract)
    if holdout is None:
        held = train.take(np.arange(cut, len(train)))
    else:
        held = labelled(table_of(holdout[0]), holdout[1], inputs, contract, names)
    judge, original = given.fitted(
        estimator, cut, was_fitted, holdout is not None, checks.conversion_tolerance
    )
    classes = _classes(original.estimator, contract, names)
    _classes(judge.estimator, contract, names)  # the rows before the holdout may lack one
    impute = impute_values(train.columns, inputs, contract)
    held = servable(held, inputs, impute, contract)
    described = " ".join(repr(original.estimator).split())[:1000]
    draft = _Draft(contract, train, impute, classes, described, selection, trained_on, template, seeds)
    tried = tried_rows(held, train, inputs, impute, contract)
    converted = convert(
        original, tried, len(next(iter(tried.values()))), draft.manifest, checks.conversion_tolerance
    )
    judged = LoadedModel(draft.manifest(converted), EstimatorModel(judge)).predict(held.columns, len(held))
    domain = draft.domain(train.take(np.arange(cut)).columns, held.columns, converted.inputs)
    may_calibrate = "never" not in (checks.calibrate, contract.training.calibrate)
    calibration = fit_calibration(judged, held.truth, contract.positive_class) if may_calibrate else None
    return draft.finish(converted, held, judged, domain, calibration, checks)


def build_from_onnx(
    data: bytes,
    x: Any,
    y: Any,
    contract: ModelContract,
    *,
    selection: str = "holdout file",
    mapping: DataMapping | None = None,
    choice: OutputChoice = AS_THE_MODEL_SAYS,
    checks: BuildChecks = CHECKED,
) -> Package:
    """A package, numbered 1, from an ONNX model made elsewhere and labelled rows that it has not seen.

    The model takes either one input per feature (named after it, [rows, 1]) or one matrix of floats of all
    features in the contract's order, and gives probabilities by class, the positive class's alone, or values.
    The reference profile is that of the rows given. Its probabilities are taken as they are: whoever made the
    file elsewhere has said what they mean.

    Args:
        mapping: what a data file calls columns and classes.
        choice: which outputs count and what classes they are, where the model does not say it.

    Raises:
        TailraceError: the model does not fit the contract, does not say what its outputs mean, or ranks the holdout the
            wrong way round; or the rows do not fit; says why.
    """
    everything = inputs_of(feature_names(x, contract, mapping), x, contract)
    everything = tuple(
        i.model_copy(update={"column": i.column or (mapping.columns.get(i.name) if mapping else None)})
        for i in everything
    )
    try:
        foreign = read_onnx(data, everything, contract, choice)
    except PackageRefused as refused:
        raise TailraceError(f"the ONNX model cannot be published: {refused.reason}") from None
    converted = foreign.converted
    names = ClassNames(contract, mapping.target if mapping else None, [*values_of_target(y), *foreign.labels])
    rows = labelled(x, y, converted.inputs, contract, names)
    impute = impute_values(rows.columns, converted.inputs, contract)
    held = servable(rows, converted.inputs, impute, contract)
    draft = _Draft(contract, rows, impute, tuple(contract.classes), foreign.producer, selection)
    try:
        outputs, classes = outputs_and_classes(
            foreign, draft.manifest(converted), held, contract, names, choice
        )
    except PackageRefused as refused:
        raise TailraceError(f"the ONNX model cannot be published: {refused.reason}") from None
    draft = replace(draft, classes=classes)
    manifest = draft.manifest(converted)
    refuse_raw_scores(outputs, contract)
    judged = LoadedModel(manifest, load_model(manifest, converted.data)).predict(held.columns, len(held))
    half = len(held) // 2
    first, second = (held.take(rows).columns for rows in np.split(np.arange(len(held)), [half]))
    domain = draft.domain(first, second, converted.inputs) if half else None
    return draft.finish(converted, held, judged, domain, None, checks)


class _Given(NamedTuple):
    """Rows as they were given and as requests bring them, and an estimator's fit on either."""

    x: Any
    y: Any
    train: LabelledRows
    inputs: tuple[Input, ...]
    contract: ModelContract

    def fitted(
        self, estimator: Any, cut: int, was_fitted: bool, has_holdout: bool, most: float
    ) -> tuple[Original, Original]:
        """What is judged, fitted on the rows before the cut, and what is published.

        One that was not fitted is fitted on rows as requests bring them where it answers those in another way.
        """
        if was_fitted:
            own = served_alike(
                Original(estimator, self.inputs, self.contract.task),
                self.x,
                self.train.columns,
                self.contract,
                most,
            )
            judge = own if has_holdout else self._as(own, fit(estimator, self.x[:cut], self.y[:cut]))
            return judge, own
        try:
            own = Original(fit(estimator, self.x[:cut], self.y[:cut]), self.inputs, self.contract.task)
            own = served_alike(own, self.x, self.train.columns, self.contract, most)
        except TailraceError as refused:
            if not hasattr(self.x, "columns"):
                raise
            served = estimator_table(self.train.columns, self.inputs, "columns", "none")
            try:
                fitted = fit(estimator, served[:cut], self.y[:cut])
            except TailraceError:
                raise refused from None
            own = Original(fitted, self.inputs, self.contract.task, "none")
        return own, own

    def _as(self, original: Original, estimator: Any) -> Original:
        return Original(estimator, self.inputs, self.contract.task, original.missing_category)


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
        checks: BuildChecks,
    ) -> Package:
        """Computes the parts, and makes the checks that every scorer will make.

        Metrics and quantiles are of calibrated predictions, of rows that the calibration has not seen.
        """
        manifest = self.manifest(converted).model_copy(update={"calibration": calibration})
        model = LoadedModel(manifest, load_model(manifest, converted.data))
        if not checks.allow_inverted:
            refuse_wrong_order(judged, held.truth, manifest.positive)
        uncalibrated = None
        if calibration is not None and judged.probabilities is not None:
            later = np.arange(calibration.rows, len(held))
            held = held.take(later)
            uncalibrated = holdout_metrics(judged.take(later), held.truth, manifest.positive)
            judged = model.predictions(model.calibrated(judged.probabilities[later]))
        metrics = holdout_metrics(judged, held.truth, manifest.positive)
        coverage = self.contract.guardrails.coverage
        levels = () if coverage is None else (coverage,)
        quantiles = conformal_quantiles(nonconformity(judged, held.truth), *levels)
        holdout = Holdout(rows=len(held), metrics=metrics, uncalibrated=uncalibrated)
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


def _classes(estimator: Any, contract: ModelContract, names: ClassNames) -> tuple[str, ...]:
    """The classes in the order of the estimator's probabilities, as the contract spells them."""
    if contract.task == "regression":
        return ()
    classes = tuple(names.of(c) for c in estimator.classes_)
    if sorted(classes) != sorted(contract.classes):
        raise TailraceError(
            f"the estimator knows the classes {', '.join(classes)}, the contract says "
            f"{', '.join(contract.classes)}: the training rows must hold every class, also without the last "
            "fifth, which is held out (or pass holdout=(X, y))"
        )
    return classes
