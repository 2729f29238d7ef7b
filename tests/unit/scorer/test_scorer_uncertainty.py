"""Conformal sets and intervals: what they promise, and what an answer says of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import models
from tests.support.scoring import CONTRACT, REQUEST, Bench, Publisher

from tailrace.contracts.language.load import load_contract
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.guards.conformal import Quantiles, conformal_quantiles, nonconformity
from tailrace.models.guards.prediction_sets import PredictionSets, uncertainty
from tailrace.models.manifest import Manifest
from tailrace.models.package.build import build_package
from tailrace.models.predictions import Predictions
from tailrace.scorer.rows import Findings
from tailrace.scorer.steps.guards import note_uncertainty
from tailrace.testing.formula_model import formula_model


@pytest.mark.parametrize("rows", [20, 99, 100, 400])
@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_what_is_exchangeable_is_covered_as_promised(rows: int, level: float) -> None:
    """The probability is at least the level, and at most 1 / (rows + 1) above it: by 4,000 calibrations."""
    draw = np.random.default_rng(rows)
    scores = np.sort(draw.exponential(size=(4000, rows)), axis=1)
    quantiles = np.array([conformal_quantiles(one, level).at(level) for one in scores])
    covered = float(np.mean(1 - np.exp(-quantiles)))  # exact for an exponential distribution
    assert level - 0.003 <= covered <= level + 1 / (rows + 1) + 0.003


def test_too_few_rows_cover_everything() -> None:
    few = conformal_quantiles(np.array([0.1, 0.2, 0.3]), 0.75)
    assert (few.at(0.75), few.at(0.9)) == (0.3, math.inf)
    assert Quantiles.model_validate_json(few.model_dump_json()) == few


def test_a_level_that_was_not_stored_is_covered_by_the_next() -> None:
    known = conformal_quantiles(np.arange(1, 1000) / 1000)
    assert known.at(0.85) == known.at(0.9) == 0.9
    assert known.at(0.9999) == math.inf


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_package_covers_rows_that_nobody_had_seen(task: str) -> None:
    frame, truth = models.rows(task, 3000, seed=1)
    kind = "linear" if task == "regression" else "logistic"
    built = build_package(models.estimator(kind), frame, truth, models.contract(task))
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    fresh, actual = models.rows(task, 4000, seed=2)
    fresh = fresh.assign(income=fresh.income.fillna(built.manifest.impute["income"]))
    texts = actual if task != "binary" else np.array(["false", "true"])[actual.astype(int)]
    outputs = model.predict(models.columns_of_frame(fresh), len(fresh))
    assert built.manifest.conformal is not None
    for level in (0.8, 0.9, 0.95):
        covered = float(np.mean(nonconformity(outputs, texts) <= built.manifest.conformal.at(level)))
        # Among calibrations of 600 rows the coverage itself has a standard deviation of sqrt(c(1-c)/600).
        assert abs(covered - level) < 4 * math.sqrt(level * (1 - level) * (1 / 600 + 1 / 4000))


def test_without_quantiles_a_manifest_has_the_bytes_that_it_had() -> None:
    made = models.package().manifest
    assert made.conformal is not None
    older = made.model_copy(update={"conformal": None})
    assert b"conformal" not in older.to_bytes()
    assert Manifest.from_bytes(older.to_bytes()).digest == older.digest != made.digest
    assert older.content_digest != made.content_digest


def quantiles(value: float | None) -> Quantiles:
    return Quantiles(rows=100, levels=(0.9,), values=(value,))


def noted(probabilities: list[list[float]], most: float | None) -> Findings:
    contract = load_contract(
        "{model: m, owner: {team: t}, features: {x: {type: number}}, target: {name: y, categories: [a, b, c]}}"
    )
    model = formula_model(contract, 1, conformal=quantiles(most))
    notes = Findings(len(probabilities))
    note_uncertainty(
        notes, Predictions(np.array(probabilities).reshape(-1, 3), None, None, ("a", "b", "c")), model, 0.9
    )
    return notes


def sets_of(notes: Findings) -> list[tuple[str, ...]]:
    assert isinstance(notes.uncertainty, PredictionSets)
    assert notes.uncertainty.coverage == 0.9
    return [notes.uncertainty.sets[number] for number in notes.uncertainty.which.tolist()]


def test_a_set_of_one_class_is_certain() -> None:
    notes = noted([[0.9, 0.1, 0.0], [0.5, 0.45, 0.05], [0.4, 0.3, 0.3]], 0.6)
    assert notes.flags["uncertain"].tolist() == [False, True, False]
    assert sets_of(notes) == [("a",), ("a", "b"), ("a",)]
    assert sets_of(notes.take(np.array([1, 0]))) == [("a", "b"), ("a",)]


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.4, 0.6, 1.0]), min_size=3, max_size=3), max_size=12),
    st.sampled_from([0.0, 0.4, 0.6, 1.0]),
)
def test_each_row_has_its_own_set(probabilities: list[list[float]], most: float) -> None:
    notes = noted(probabilities, most)
    for row, shares in enumerate(probabilities):
        held = tuple(name for name, p in zip("abc", shares, strict=True) if 1.0 - p <= most)
        assert sets_of(notes)[row] == held
        assert ("uncertain" in notes.flags and bool(notes.flags["uncertain"][row])) == (len(held) != 1)


def test_a_class_keeps_its_name_to_the_last_character() -> None:
    outputs = Predictions(np.array([[0.5, 0.5]]), None, None, ("a\0", "b"))
    found = uncertainty(outputs, quantiles(0.6), 0.9)
    assert isinstance(found, PredictionSets)
    assert found.sets[int(found.which[0])] == ("a\0", "b")


def test_no_class_and_every_class_are_uncertain() -> None:
    for probabilities, most, names in (
        ([0.4, 0.3, 0.3], 0.1, ()),
        ([1.0, 0.0, 0.0], None, ("a", "b", "c")),
    ):
        notes = noted([probabilities], most)
        assert (sets_of(notes), notes.flags["uncertain"].tolist()) == ([names], [True])


def bench(text: str, most: float | None, **changed: Any) -> Bench:
    publisher = Publisher()
    made = Bench(publisher.logic(), publisher)
    record = publisher.contract(text)
    contract = publisher.contracts["credit"][-1]
    changed = {"conformal": quantiles(most)} | changed
    made.control(
        record,
        publisher.manifest(1, formula_model(contract, 1, **changed)),
        publisher.rollout(champion=1),
    )
    return made


COVERAGE = CONTRACT + "guardrails: {coverage: 90%}\n"


def test_an_uncertain_answer_goes_where_the_policy_says() -> None:
    made = bench(COVERAGE, 0.6)
    sure, unsure = made.events(made.requests(REQUEST | {"income": 200_000.0}, REQUEST | {"debt_ratio": 1.0}))
    assert (sure["action"], sure["prediction_set"]) == ("approve", ["false"])
    assert (unsure["action"], unsure["score"]) == ("person", 0.5)
    assert (unsure["coverage"], unsure["prediction_set"]) == (0.9, ["false", "true"])
    assert (unsure["guardrails"], unsure["guarded"]) == ([], False)


@pytest.mark.parametrize(("text", "changed"), [(CONTRACT, {}), (COVERAGE, {"conformal": None})])
def test_nothing_is_uncertain_where_nobody_asks_or_knows(text: str, changed: dict[str, Any]) -> None:
    made = bench(text, 0.6, **changed)
    (event,) = made.events(made.requests(REQUEST | {"debt_ratio": 1.0}))
    assert (event["action"], event["coverage"], event["prediction_set"]) == ("refer", None, None)


def test_a_value_comes_with_its_interval() -> None:
    text = (
        "{model: credit, owner: {team: t}, features: {income: {type: number}, debt_ratio: {type: number}}, "
        "target: {name: y, type: number}, guardrails: {coverage: 90%}}"
    )
    made = bench(text, 0.25)
    (event,) = made.events(made.requests({"request_id": "r", "income": 40_000.0, "debt_ratio": 1.0}))
    assert event["value"] == 0.5
    assert (event["coverage"], event["interval_low"], event["interval_high"]) == (0.9, 0.25, 0.75)
