"""A real `LoadedModel` around a formula that a test can compute by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Array, Columns
from tailrace.models.formats.load import LoadedModel
from tailrace.models.inputs import Input
from tailrace.models.manifest import Holdout, Lineage, Manifest, Part, Tolerance

IMPUTE = {"income": 30_000.0, "grade": "a"}


class Formula:
    """Runs as a model: logistic in income and debt ratio, other by version. A debt ratio of ``poison`` raises."""

    poison = 666.0

    def __init__(self, version: int) -> None:
        self.version = version

    def run(self, columns: Columns, rows: int) -> Array:
        if (columns["debt_ratio"] == self.poison).any():
            raise RuntimeError("poisoned")
        # A NaN would pass into the score, as it does in most models.
        logit = self.version * columns["debt_ratio"] - columns["income"] / 40_000
        return (1 / (1 + np.exp(-logit))).reshape(rows, 1)

    def score(self, request: Mapping[str, Any]) -> float:
        """The same for one request, by Python's own arithmetic."""
        income = IMPUTE["income"] if request["income"] is None else request["income"]
        assert isinstance(income, float)
        return 1 / (1 + math.exp(-(self.version * request["debt_ratio"] - income / 40_000)))


def formula_model(contract: ModelContract, version: int, runner: Any = None, **changed: Any) -> LoadedModel:
    """The version of a model of this contract. ``changed`` fields of its manifest replace those of the formula."""
    inputs = tuple(
        Input(name=name, type=f.type, categories=tuple(f.categories or ()))
        for name, f in contract.features.items()
    )
    facts: dict[str, Any] = {
        "form": 1,
        "model": contract.model,
        "version": version,
        "sequence": version,
        "task": contract.task,
        "format": "onnx",
        "feed": "columns",
        "inputs": inputs,
        "missing_category": "none",
        "output": "probabilities",
        "classes": tuple(contract.classes),
        "positive": contract.positive_class,
        "impute": {n: v for n, v in IMPUTE.items() if n in contract.features},
        "contract_digest": contract.digest,
        "parts": {name: Part(sha256="0" * 64, size=0) for name in ("model", "golden", "reference", "card")},
        "tolerance": Tolerance(absolute=0.0, relative=0.0),
        "conversion": None,
        "holdout": Holdout(rows=0, metrics={}),
        "lineage": Lineage(
            estimator="formula", data_digest="0" * 64, rows=0, selection="", code="", libraries={}, seeds={}
        ),
    }
    known = Manifest.model_fields.keys()
    manifest = Manifest(**{k: v for k, v in (facts | changed).items() if k in known})
    return LoadedModel(manifest, runner or Formula(version))
