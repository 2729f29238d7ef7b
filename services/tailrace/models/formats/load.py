"""A model in memory: columns in, predictions out, whatever its format."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from tailrace.models.columns import Array, Coded, padded, plain
from tailrace.models.manifest import Manifest
from tailrace.models.predictions import Predictions
from tailrace.models.reference import Reference


class Runner(Protocol):
    def run(self, columns: Mapping[str, Any], rows: int) -> Array:
        """Outputs [rows, k] of a number of rows that is a multiple of 64. The inputs are arrays as in `Columns`; those
        that it names as ``coded``, if it does, may be `CategoricalColumn`.
        """
        ...


class LoadedModel:
    """A version that can predict.

    Attributes:
        manifest: what the package says about itself.
        digest: the artifact digest that predictions name.
        reference: profile of the training data, or None where the package was loaded for prediction only.
    """

    def __init__(self, manifest: Manifest, runner: Runner, reference: Reference | None = None) -> None:
        self.manifest = manifest
        self.digest = manifest.digest
        self.reference = reference
        self._runner = runner
        self._coded: frozenset[str] = getattr(runner, "coded", frozenset())
        self._positive = manifest.classes.index(manifest.positive) if manifest.positive is not None else None

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(i.name for i in self.manifest.inputs)

    def outputs(self, columns: Mapping[str, Coded], rows: int) -> Array:
        """float64 [rows, classes] of probabilities, or [rows, 1] of values, as the model gives them.

        A model that only gives the positive class's probability is completed to both.

        Raises:
            ValueError: the model gives another number of outputs than the manifest's classes.
            Exception: whatever the model raises on these rows.
        """
        width = len(self.manifest.classes) or 1
        if not rows:
            return np.empty((0, width))
        given = {n: columns[n] if n in self._coded else plain(columns[n]) for n in self.input_names}
        lengthened, total = padded(given, rows)
        outputs = self._runner.run(lengthened, total)[:rows]
        if outputs.shape[1] == 1 and self._positive is not None:
            sides = [1.0 - outputs[:, 0], 1.0 - outputs[:, 0]]
            sides[self._positive] = outputs[:, 0]
            outputs = np.column_stack(sides)
        if outputs.shape != (rows, width):
            raise ValueError(f"the model gives {outputs.shape[1]} outputs a row, {width} were expected")
        return outputs

    def predict(self, columns: Mapping[str, Coded], rows: int) -> Predictions:
        """Predictions for ``rows`` rows, calibrated where the package says how; ``columns`` holds at least the model's
        inputs (see models/columns.py).
        """
        return self.predictions(self.calibrated(self.outputs(columns, rows)))

    def calibrated(self, outputs: Array) -> Array:
        """Outputs of the model as the package's calibration maps them; as they are where it has none."""
        calibration = self.manifest.calibration
        return outputs if calibration is None else calibration.apply(outputs, self._positive)

    def predictions(self, outputs: Array) -> Predictions:
        """What the outputs mean."""
        if self.manifest.task == "regression":
            return Predictions(None, None, outputs[:, 0], ())
        score = outputs[:, self._positive] if self._positive is not None else None
        return Predictions(outputs, score, None, self.manifest.classes)


def load_model(manifest: Manifest, data: bytes) -> Runner:
    """The runner for the package's model part; what a format needs is imported only where it is used.

    Raises:
        PackageRefused: the bytes are not a model of the manifest's format, or one that is not let in.
    """
    name = {"onnx": "OnnxModel", "skops": "SkopsModel"}[manifest.format]
    runner: Any = getattr(importlib.import_module(f"tailrace.models.formats.{manifest.format}.run"), name)
    loaded: Runner = runner(data, manifest)
    return loaded
