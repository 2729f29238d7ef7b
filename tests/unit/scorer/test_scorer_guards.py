"""Guards: which rows they find, how often without reason, and what becomes of the answer."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import LedoitWolf
from tests.support import models
from tests.support.scoring import CONTRACT, REQUEST, Bench, Publisher

from tailrace.contracts.language.guards.outputs import improper_rows, rows_out_of_bounds
from tailrace.contracts.language.load import load_contract
from tailrace.models.columns import Array, Columns
from tailrace.models.formats.load import LoadedModel
from tailrace.models.guards.domain import LEAST_SHRINKAGE, TrainingDomain, fit_domain
from tailrace.models.inputs import Input
from tailrace.models.package.build import build_package
from tailrace.models.predictions import Predictions
from tailrace.models.reference import Reference
from tailrace.testing.formula_model import formula_model

# --- domain


@functools.cache
def known() -> tuple[TrainingDomain, tuple[Input, ...], float]:
    frame, truth = models.rows("binary", 4000, seed=1)
    built = build_package(models.estimator("logistic"), frame, truth, models.contract())
    reference = Reference.from_bytes(built.parts["reference"])
    assert reference.domain is not None
    return reference.domain, built.manifest.inputs, float(built.manifest.impute["income"])


def distances(frame: pd.DataFrame) -> Array:
    domain, inputs, income = known()
    columns = models.columns_of_frame(frame.assign(income=frame.income.fillna(income)))
    return domain.measure(columns, len(frame), inputs)[0]


@pytest.mark.parametrize("false_alarms", [0.01, 0.05, 0.2])
def test_alarms_about_rows_like_those_in_training_are_as_many_as_stated(false_alarms: float) -> None:
    fresh, _ = models.rows("binary", 5000, seed=2)
    share = float(np.mean(distances(fresh) > known()[0].distances.at(1 - false_alarms)))
    # Of 800 rows held out; two standard deviations make 95 %, here are four.
    assert abs(share - false_alarms) < 4 * math.sqrt(false_alarms * (1 - false_alarms) * (1 / 800 + 1 / 5000))


@pytest.mark.parametrize(
    "strange",
    [
        {"income": 5_000_000.0},
        {"debt_ratio": -4.0},
        {"debt_ratio": 1e300},
        {"age": 400},
        {"purpose": "yacht"},
    ],
)
def test_rows_like_none_in_training_are_found(strange: dict[str, Any]) -> None:
    fresh, _ = models.rows("binary", 500, seed=3)
    found = distances(fresh.assign(**strange)) > known()[0].distances.at(0.99)
    assert found.mean() > 0.99


def numbers(matrix: Array) -> dict[str, Array]:
    return {"a": matrix[:, 0], "b": matrix[:, 1]}


PAIR = (Input(name="a", type="number"), Input(name="b", type="number"))


def test_values_that_never_came_together_are_far() -> None:
    draw = np.random.default_rng(0)
    a = draw.normal(size=2000)
    matrix = np.column_stack([a, a + 0.1 * draw.normal(size=2000)])
    domain = fit_domain(numbers(matrix[:1500]), numbers(matrix[1500:]), PAIR, ())
    (near, far), _ = domain.measure(numbers(np.array([[1.5, 1.5], [1.5, -1.5]])), 2, PAIR)
    assert near < domain.distances.at(0.9) < domain.distances.at(0.995) < far


def test_the_distance_is_mahalanobis_in_shrunk_correlations() -> None:
    draw = np.random.default_rng(1)
    matrix = draw.normal(size=(300, 2)) @ np.array([[1.0, 0.8], [0.0, 3.0]]) + 5
    domain = fit_domain(numbers(matrix), numbers(matrix), PAIR, ())
    away = (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)
    shrunk = LedoitWolf(assume_centered=True).fit(away)
    more = max(0.0, LEAST_SHRINKAGE - shrunk.shrinkage_)
    precision = np.linalg.inv((1 - more) * shrunk.covariance_ + more * np.eye(2))
    expected = np.sqrt(np.einsum("ri,ij,rj->r", away, precision, away))
    measured, _ = domain.measure(numbers(matrix), 300, PAIR)
    np.testing.assert_allclose(measured, expected, rtol=1e-9)
    alone, _ = domain.measure(numbers(matrix[7:8]), 1, PAIR)
    assert alone[0] == measured[7]  # bit for bit


def test_many_columns_are_taken_each_by_itself() -> None:
    draw = np.random.default_rng(2)
    inputs = tuple(Input(name=f"x{i}", type="number") for i in range(80))
    columns = {i.name: draw.normal(size=200) for i in inputs}
    domain = fit_domain(columns, columns, inputs, ())
    assert domain.whiten is None
    assert domain.measure(columns, 200, inputs)[0].mean() == pytest.approx(math.sqrt(80), rel=0.05)


def test_a_reference_without_a_domain_has_the_bytes_that_it_had() -> None:
    reference = Reference.from_bytes(models.package().parts["reference"])
    older = reference.model_copy(update={"domain": None})
    assert b"domain" not in older.to_bytes()
    assert Reference.from_bytes(older.to_bytes()) == older


# --- outputs


def classes(shares: list[list[float]]) -> Predictions:
    return Predictions(np.array(shares), None, None, ("a", "b"))


def seen(outputs: Predictions) -> Any:
    """Rows as a guard of outputs sees them."""
    return SimpleNamespace(outputs=outputs)


def test_probabilities_are_some() -> None:
    found = improper_rows(None, seen(classes([[0.5, 0.5], [0.6, 0.5], [1.2, -0.2], [0.5, 0.5 + 1e-6]])))
    assert {row: finding.guard for row, finding in found.items()} == {1: "probabilities", 2: "probabilities"}


@pytest.mark.parametrize(("value", "fine"), [(0.1, True), (0.9, True), (0.09, False), (0.91, False)])
def test_bounds_belong_to_what_they_allow(value: float, fine: bool) -> None:
    bounds = load_contract(CONTRACT + "guardrails: {score: {min: 0.1, max: 0.9}}\n").guardrails.score
    assert bounds is not None
    for outputs in (
        Predictions(None, None, np.array([value]), ()),
        Predictions(np.array([[1 - value, value]]), np.array([value]), None, ("f", "t")),
    ):
        assert (rows_out_of_bounds(bounds, seen(outputs)) == {}) is fine


# --- on a request's way


def guarded(guardrails: str, **changed: Any) -> Bench:
    publisher = Publisher()
    made = Bench(publisher.logic(), publisher)
    record = publisher.contract(CONTRACT + guardrails)
    plain = formula_model(publisher.contracts["credit"][-1], 1, **changed)
    made.control(
        record,
        publisher.manifest(1, LoadedModel(plain.manifest, plain._runner, credit_reference(plain))),
        publisher.rollout(champion=1),
    )
    return made


def credit_reference(model: LoadedModel) -> Reference:
    draw, rows = np.random.default_rng(0), 1000
    columns: dict[str, Array] = {
        "income": draw.normal(40_000, 5_000, rows),
        "debt_ratio": draw.uniform(0, 2, rows),
        "age": draw.uniform(20, 60, rows),
        "purpose": draw.choice(np.array(["car", "home", "other"], dtype=object), rows),
        "grade": draw.choice(np.array(["a", "b"], dtype=object), rows),
    }
    domain = fit_domain(columns, columns, model.manifest.inputs, ["age"])
    return Reference(rows=rows, features={}, output_rows=0, score=None, predicted_class=None, domain=domain)


def test_a_row_out_of_the_domain_is_flagged_and_named() -> None:
    made = guarded("guardrails: {domain: {false_alarms: 1%}}\n")
    usual, strange = made.events(made.requests(REQUEST, REQUEST | {"debt_ratio": 90.0}))
    assert (usual["action"], usual["guardrails"]) == ("refer", [])
    assert (strange["action"], strange["served_by"]) == ("person", "model")
    assert [(f["guard"], f["field"]) for f in strange["guardrails"]] == [("domain", "debt_ratio")]
    assert (usual["guarded"], strange["guarded"]) == (False, True)


class Improper:
    """Says 0.5 and 0.9, whatever the row."""

    def run(self, columns: Columns, rows: int) -> Array:
        return np.tile([0.5, 0.9], (rows, 1))


def test_of_two_guards_that_find_something_the_first_says_what() -> None:
    made = guarded("guardrails: {score: {max: 0.7}}\n", runner=Improper())
    (event,) = made.events(made.requests(REQUEST))
    assert [finding["guard"] for finding in event["guardrails"]] == ["probabilities"]
    assert event["guarded"]


def test_a_score_out_of_its_bounds_is_flagged() -> None:
    made = guarded("guardrails: {score: {max: 0.7}}\n")
    fine, high = made.events(made.requests(REQUEST, REQUEST | {"debt_ratio": 3.0}))
    assert (fine["action"], fine["guardrails"]) == ("refer", [])
    assert high["action"] == "person"
    assert [f["guard"] for f in high["guardrails"]] == ["score"]
    assert (fine["guarded"], high["guarded"]) == (False, True)
