"""Small models, contracts and packages for tests."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.manifest import Part, sha256
from tailrace.models.package.build import Package, build_package
from tailrace.signing.keys import SigningKey
from tailrace.testing.sealed_package import sealed

PURPOSES = ["car", "home", "education", "other"]

CONTRACT = """
model: credit
owner: {team: risk}
features:
  income: {type: number, min: 0, missing: impute}
  debt_ratio: {type: number, missing: pass}
  age: {type: integer, min: 18, max: 120}
  purpose: {categories: [car, home, education, other], missing: pass}
target: TARGET
"""
TARGETS = {
    "binary": "{name: defaulted, type: boolean}",
    "multiclass": "{name: grade, categories: [a, b, c]}",
    "regression": "{name: loss, type: number}",
}


def contract(task: str = "binary") -> ModelContract:
    return load_contract(CONTRACT.replace("TARGET", TARGETS[task]))


@functools.cache
def rows(task: str = "binary", n: int = 400, seed: int = 0) -> tuple[pd.DataFrame, Any]:
    """Loans with missing values, and their truth."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "income": draw.lognormal(10.5, 0.5, n),
            "debt_ratio": draw.gamma(2.0, 0.3, n),
            "age": draw.integers(18, 90, n),
            "purpose": draw.choice(PURPOSES, n).astype(object),
        }
    )
    risk = 2 * frame.debt_ratio - frame.income / 40_000 + (frame.purpose == "car") + draw.normal(size=n)
    frame.loc[draw.random(n) < 0.1, "income"] = np.nan
    frame.loc[draw.random(n) < 0.1, "debt_ratio"] = np.nan
    frame.loc[draw.random(n) < 0.1, "purpose"] = None
    truth = {
        "binary": (risk > 0.5).to_numpy(),
        "multiclass": np.array(["a", "b", "c"])[np.digitize(risk, [0.0, 1.0])],
        "regression": risk.to_numpy() * 1000,
    }
    return frame, truth[task]


def preprocessing(categories: Any = None) -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["income", "debt_ratio", "age"]),
            (
                "purpose",
                categories or OneHotEncoder(categories=[PURPOSES], handle_unknown="ignore"),
                ["purpose"],
            ),
        ]
    )


def estimator(kind: str) -> Pipeline:
    """Unfitted: logistic, forest, boosting (which ONNX does not carry) or linear (a regression)."""
    if kind == "boosting":
        ordinal = OrdinalEncoder(
            categories=[PURPOSES], handle_unknown="use_encoded_value", unknown_value=np.nan
        )
        columns = ColumnTransformer(
            [("numbers", "passthrough", ["income", "debt_ratio", "age"]), ("purpose", ordinal, ["purpose"])]
        )
        return make_pipeline(
            columns, HistGradientBoostingClassifier(max_iter=10, categorical_features=[3], random_state=0)
        )
    last = {
        "logistic": LogisticRegression(max_iter=500),
        "forest": RandomForestClassifier(10, max_depth=6, random_state=0),
        "linear": LinearRegression(),
    }[kind]
    return make_pipeline(preprocessing(), last)


@functools.cache
def package(kind: str = "logistic", task: str = "binary", version: int = 1) -> Package:
    frame, truth = rows(task)
    built = build_package(estimator(kind).fit(frame, truth), frame, truth, contract(task))
    return built.numbered(version, version)


def columns_of_frame(frame: pd.DataFrame) -> dict[str, Any]:
    """The frame in the form in which scorers hand rows to a model."""
    purpose = np.empty(len(frame), dtype=object)
    purpose[:] = [v if isinstance(v, str) else None for v in frame.purpose]
    numbers = {n: frame[n].to_numpy(dtype=np.float64) for n in ("income", "debt_ratio", "age")}
    return {**numbers, "purpose": purpose}


def resealed(built: Package, key: SigningKey, **parts: bytes) -> tuple[dict[str, Any], Any]:
    """The package with other parts, signed by a publisher who means it."""
    changed = {**built.parts, **parts}
    digests = {name: Part(sha256=sha256(data), size=len(data)) for name, data in changed.items()}
    return sealed(Package(built.manifest.model_copy(update={"parts": digests}), changed), key)


def redescribed(built: Package, key: SigningKey, **fields: Any) -> tuple[dict[str, Any], Any]:
    """The package with another manifest, signed by a publisher who means it."""
    return sealed(Package(built.manifest.model_copy(update=fields), built.parts), key)
