"""Domain guard and conformal sets on real rows that nobody had seen: as many alarms and truths as stated.

Split at random, rows are exchangeable: where ``n`` rows set a threshold at the ``k``-th smallest, the number of ``m``
fresh ones up to it is beta-binomial(m, k, n + 1 - k), or more where some are equal, and the number of those below it is
that or less. In the order of time rows are not exchangeable, and nothing is promised.
"""

from __future__ import annotations

import functools
import json
import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.support.real_data import real_data

from tailrace.contracts.language.load import load_contract
from tailrace.models.columns import Array, Columns
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.guards.conformal import nonconformity
from tailrace.models.package.build import Package, build_package
from tailrace.models.reference import Reference

RARELY = 1e-5
ROWS = 12_000
LEVELS = [0.5, 0.8, 0.9, 0.95, 0.99]


class Case(NamedTuple):
    file: str
    target: str
    spec: str
    estimator: Any


CASES = {
    "electricity": Case("electricity.csv", "class", "boolean", LogisticRegression()),
    "wine": Case(
        "wine_quality.csv",
        "taste",
        "[low, middle, high]",
        RandomForestClassifier(40, min_samples_leaf=3, random_state=0),
    ),
    "quality": Case("wine_quality.csv", "quality", "number", LinearRegression()),
}


class World(NamedTuple):
    """A package built from some rows, and others that it has never met."""

    package: Package
    model: LoadedModel
    fresh: Columns
    truth: Array


def table(case: Case) -> tuple[pd.DataFrame, Array]:
    """The file's numbers and its target, or where it is missing rows like them."""
    real = real_data(case.file)
    frame = made_up() if real is None else pd.read_csv(real).head(ROWS)
    names = ["low", "middle", "high"]
    truth = {
        "class": lambda: frame["class"].to_numpy(dtype=bool),
        "taste": lambda: np.array([names[(q >= 6) + (q >= 7)] for q in frame["quality"]]),
        "quality": lambda: frame["quality"].to_numpy(dtype=float),
    }[case.target]()
    return frame.drop(columns=["class", "quality", "type"], errors="ignore").astype(float), truth


def made_up() -> pd.DataFrame:
    """As many rows as are taken of a file: what is measured is positive, correlated, and seldom twice its mean.

    With half as many, a level of 0.9 could not be told from one of 0.95 so rarely by mistake; of what varies as much as
    it is large, three times as much would not be unlike all that was seen.
    """
    draw = np.random.default_rng(5)
    mixed = draw.gamma(9.0, 1 / 9.0, (ROWS, 6)) @ draw.dirichlet(np.ones(6), 6).T
    seen = (mixed - mixed.mean(axis=0)) / mixed.std(axis=0) + draw.normal(size=(ROWS, 6))
    frame = pd.DataFrame(mixed, columns=[f"x{number}" for number in range(6)])
    frame["class"] = (seen[:, 0] > 0).astype(int)
    frame["quality"] = np.clip(np.round(6 + seen[:, 1] / 2), 3, 9)
    return frame


@functools.cache
def world(name: str) -> World:
    case = CASES[name]
    x, y = table(case)
    order = np.random.default_rng(11).permutation(len(x))
    x, y = x.iloc[order].reset_index(drop=True), y[order]
    cut = len(x) * 6 // 10
    features = {column: {"type": "number"} for column in x}
    target = {"name": case.target, "categories": ["low", "middle", "high"]}
    if not case.spec.startswith("["):
        target = {"name": case.target, "type": case.spec}
    contract = load_contract(
        json.dumps({"model": "m", "owner": {"team": "t"}, "features": features, "target": target})
    )
    package = build_package(make_pipeline(StandardScaler(), case.estimator), x[:cut], y[:cut], contract)
    reference = Reference.from_bytes(package.parts["reference"])
    model = LoadedModel(package.manifest, load_model(package.manifest, package.parts["model"]), reference)
    fresh = {column: x[column].to_numpy()[cut:] for column in x}
    truth = y[cut:] if y.dtype != np.bool_ else np.where(y[cut:], "true", "false")
    return World(package, model, fresh, truth)


def assert_exchangeable(scores: Array, threshold: float, level: float, rows: int) -> None:
    """The fresh scores up to, and those below, a threshold that ``rows`` others set at this level."""
    rank = math.ceil((rows + 1) * level)
    count = stats.betabinom(len(scores), rank, rows + 1 - rank)
    assert np.sum(scores <= threshold) >= count.ppf(RARELY)
    assert np.sum(scores < threshold) <= count.ppf(1 - RARELY)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", sorted(CASES))
def test_alarms_of_the_domain_guard_are_as_many_as_stated(name: str, level: float) -> None:
    case = world(name)
    assert case.model.reference is not None
    domain = case.model.reference.domain
    assert domain is not None
    distances, _ = domain.measure(case.fresh, len(case.truth), case.package.manifest.inputs)
    assert_exchangeable(distances, domain.distances.at(level), level, domain.distances.rows)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", sorted(CASES))
def test_sets_and_intervals_hold_as_many_truths_as_stated(name: str, level: float) -> None:
    case = world(name)
    quantiles = case.package.manifest.conformal
    assert quantiles is not None
    predictions = case.model.predict(case.fresh, len(case.truth))
    assert_exchangeable(nonconformity(predictions, case.truth), quantiles.at(level), level, quantiles.rows)


def test_a_guard_of_the_wrong_level_would_be_found() -> None:
    case = world("electricity")
    quantiles = case.package.manifest.conformal
    assert quantiles is not None
    scores = nonconformity(case.model.predict(case.fresh, len(case.truth)), case.truth)
    with pytest.raises(AssertionError):
        assert_exchangeable(scores, quantiles.at(0.95), 0.9, quantiles.rows)
    with pytest.raises(AssertionError):
        assert_exchangeable(scores, quantiles.at(0.8), 0.9, quantiles.rows)


def test_rows_unlike_any_are_found() -> None:
    """Wines with three times as much of everything in them."""
    case = world("wine")
    domain = case.model.reference.domain if case.model.reference else None
    assert domain is not None
    moved = {name: column * 3 for name, column in case.fresh.items()}
    distances, _ = domain.measure(moved, len(case.truth), case.package.manifest.inputs)
    assert np.mean(distances > domain.distances.at(0.99)) > 0.9
