"""The manifest: everything that a package says about itself, as typed data with one canonical form in bytes.

Those bytes are what is signed, and their digest is the artifact digest that every prediction names. Times
are not in them: the same data and code give the same manifest.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from tailrace.models.errors import PackageRefused
from tailrace.models.frozen import Finite, Frozen
from tailrace.models.guards.calibration import Calibration
from tailrace.models.guards.conformal import Quantiles
from tailrace.models.inputs import Input
from tailrace.signing.canonical import canonical_json
from tailrace.templates.team_templates import TemplateOrigin

Task = Literal["binary", "multiclass", "regression"]
PartName = Literal["model", "golden", "reference", "card"]

PARTS: tuple[PartName, ...] = get_args(PartName)

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Part(Frozen):
    """One file of the package."""

    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class Tolerance(Frozen):
    """How far outputs may be from the publisher's: ``|a - b| <= absolute + relative * |b|``."""

    absolute: Finite
    relative: Finite


class Conversion(Frozen):
    """How the model in the package compares with the estimator that it was made from, on the holdout.

    ``max_abs_difference`` is the largest difference of any probability or value; ``class_agreement`` the share of rows
    with the same predicted class (1 for regression). ``note`` says how it was converted, or why it was not.
    ``tolerance`` is the largest difference that was allowed, as a share of the outputs' ``spread`` (their standard
    deviation over the rows). A package of before has neither, and what is None is left out of the bytes.
    """

    rows: int
    max_abs_difference: Finite
    class_agreement: Finite
    note: str
    tolerance: Finite | None = None
    spread: Finite | None = None


class Holdout(Frozen):
    """What the model scored on rows that it was not fitted on: ``metrics`` as scikit-learn computes them.

    ``uncalibrated`` are the metrics of the same rows before calibration; left out of the bytes where there is none.
    """

    rows: int
    metrics: dict[str, Finite]
    uncalibrated: dict[str, Finite] | None = None


class TrainedOn(Frozen):
    """Which rows of a file it was fitted and judged on: those where the SQL condition ``where`` is true, of event
    times from ``first_ms`` to ``last_ms`` (milliseconds since 1970, both included). ``content`` is the SHA-256 of the
    file's bytes; a package of before that has none."""

    file: str
    where: str | None
    first_ms: int
    last_ms: int
    content: str | None = None


class Lineage(Frozen):
    """Where the version comes from; ``template`` where a team's template trained it, else left out of the bytes."""

    estimator: str
    data_digest: Digest
    rows: int
    selection: str
    trained_on: TrainedOn | None = None
    code: str
    libraries: dict[str, str]
    seeds: dict[str, int]
    template: TemplateOrigin | None = None


class Manifest(Frozen):
    """What a package says about itself.

    Attributes:
        form: version of this format.
        model: logical model.
        version: number of the version, from 1.
        sequence: grows with every publication of the model; an older one is taken up only by a rollback.
        feed: ``columns`` gives the model one input per feature, ``matrix`` one matrix, columns as ``inputs``.
        missing_category: what an estimator was fitted on where a category was missing (ONNX: the empty text).
        output: the ONNX output, or the estimator's method, that gives probabilities or values.
        classes: texts of the classes in the order of the probabilities; empty for a regression.
        positive: the class whose probability is the score of a binary model.
        impute: value by feature for what is missing, where the contract says ``missing: impute``.
        contract_digest: the contract that the version was built under.
        conformal: how badly predictions fit rows that the model has not seen (models/guards/conformal.py); a package
            of before that has none, and what is None is left out of the bytes.
        calibration: how probabilities are mapped to what they should be (models/guards/calibration.py); None where the
            model needs none. Golden pairs are outputs of the model itself, everything else is of calibrated ones.
    """

    form: Literal[1]
    model: str
    version: Number
    sequence: Number
    task: Task
    format: Literal["onnx", "skops"]
    feed: Literal["columns", "matrix"]
    inputs: Annotated[tuple[Input, ...], Field(min_length=1)]
    missing_category: Literal["empty", "none", "nan"]
    output: str
    classes: tuple[str, ...]
    positive: str | None
    impute: dict[str, Finite | str]
    contract_digest: Digest
    parts: dict[PartName, Part]
    tolerance: Tolerance
    conversion: Conversion | None
    holdout: Holdout
    lineage: Lineage
    conformal: Quantiles | None = None
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        names = [i.name for i in self.inputs]
        if len(set(names)) != len(names):
            raise ValueError("an input is named twice")
        if set(self.parts) != set(PARTS):
            raise ValueError(f"parts must be exactly {', '.join(PARTS)}")
        classes = {"binary": len(self.classes) == 2, "multiclass": len(self.classes) >= 2}
        if not classes.get(self.task, not self.classes) or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"a {self.task} model cannot have the classes {list(self.classes)}")
        if self.positive not in (self.classes if self.task == "binary" else (None,)):
            raise ValueError("positive must be one of the classes of a binary model, and only there")
        methods = {"binary": "sigmoid", "multiclass": "temperature"}
        if self.calibration is not None and self.calibration.method != methods.get(self.task):
            raise ValueError(f"a {self.task} model is not calibrated by {self.calibration.method}")
        if not set(self.impute) <= set(names):
            raise ValueError("impute names a feature that is not an input")
        return self

    def to_bytes(self) -> bytes:
        return self._canonical(set())

    @property
    def digest(self) -> str:
        """The artifact digest."""
        return sha256(self.to_bytes())

    @property
    def content_digest(self) -> str:
        """Digest without number and sequence: equal for two builds from the same data and code."""
        return sha256(self._canonical({"version", "sequence"}))

    def _canonical(self, without: set[str]) -> bytes:
        absent = {name for name in ("conformal", "calibration") if getattr(self, name) is None}
        fields = self.model_dump(mode="json", exclude=without | absent)
        if self.lineage.template is None:
            del fields["lineage"]["template"]
        optional = [(each, "column") for each in fields["inputs"]] + [(fields["holdout"], "uncalibrated")]
        if self.lineage.trained_on is not None:
            optional.append((fields["lineage"]["trained_on"], "content"))
        if self.conversion is not None:
            optional += [(fields["conversion"], "tolerance"), (fields["conversion"], "spread")]
        for section, name in optional:
            if section[name] is None:
                del section[name]
        return canonical_json(fields)

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Parses canonical bytes.

        Raises:
            PackageRefused: the bytes are not a manifest, or not in the canonical form.
        """
        try:
            manifest = cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"]) or "manifest"
            raise PackageRefused("manifest", f"{where}: {first['msg']}") from None
        if manifest.to_bytes() != data:
            raise PackageRefused("manifest", "the manifest is not in its canonical form")
        return manifest


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
