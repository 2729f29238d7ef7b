"""Values are scikit-learn's, intervals those of the literature; oracles are other libraries and plain simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from tests.support.training import contract_text

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Array
from tailrace.models.package.holdout_metrics import holdout_estimates
from tailrace.models.predictions import Predictions
from tailrace.statistics.metrics import METRIC
from tailrace.trainer.evaluate import baseline, evaluations

TEXT = contract_text("credit")
BINARY = load_contract(TEXT)
CLASSES = load_contract(
    TEXT.replace("{name: defaulted, type: boolean}", "{name: kind, categories: [a, b, c]}")
)
NUMBER = load_contract(TEXT.replace("{name: defaulted, type: boolean}", "{name: price, type: number}"))
RNG = np.random.default_rng(5)
N = 400


def binary(n: int = N) -> tuple[Predictions, Array]:
    truth = RNG.random(n) < 0.3
    score = np.round(np.clip(0.3 + 0.25 * truth + RNG.normal(0, 0.2, n), 0.01, 0.99), 2)  # with ties
    texts = np.where(truth, "true", "false").astype(object)
    return Predictions(np.column_stack([1 - score, score]), score, None, ("false", "true")), texts


def classes(n: int = N) -> tuple[Predictions, Array]:
    known = RNG.integers(0, 3, n)
    probabilities = RNG.dirichlet([1, 1, 1], n) + 0.7 * np.eye(3)[known]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Predictions(probabilities, None, None, ("a", "b", "c")), np.array(["a", "b", "c"], object)[known]


def interval(metric: str, predictions: Predictions, truth: Array, contract: ModelContract) -> tuple[Any, Any]:
    found = holdout_estimates(predictions, truth, contract.positive_class)[metric]
    return found.low, found.high


def number(n: int = N) -> tuple[Predictions, Array]:
    truth = RNG.normal(10, 3, n)
    return Predictions(None, None, truth + RNG.normal(0.2, 1, n), ()), truth


CASES = [(BINARY, binary()), (CLASSES, classes()), (NUMBER, number())]


@pytest.mark.parametrize(("contract", "case"), CASES)
def test_every_metric_has_a_value_within_its_interval(
    contract: ModelContract, case: tuple[Predictions, Array]
) -> None:
    entries = evaluations("candidate", *case, contract, template="random-forest")
    assert {e["metric"] for e in entries} >= set(contract.quality.metrics)
    for e in entries:
        assert e["low"] <= e["value"] <= e["high"], e
        assert (e["who"], e["template"], e["version"], e["n"]) == ("candidate", "random-forest", None, N)


def test_the_interval_of_a_mean_is_students() -> None:
    predictions, truth = binary()
    assert predictions.score is not None
    terms = (predictions.score - (truth == "true")) ** 2
    expected = stats.t.interval(0.95, N - 1, terms.mean(), stats.sem(terms))
    assert interval("brier", predictions, truth, BINARY) == pytest.approx(expected, rel=1e-12)
    losses = [
        sk.log_loss([t], [p], labels=["false", "true"])
        for t, p in zip(truth, predictions.probabilities, strict=True)
    ]
    expected = stats.t.interval(0.95, N - 1, np.mean(losses), stats.sem(losses))
    assert interval("log_loss", predictions, truth, BINARY) == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_accuracy_is_wilsons() -> None:
    predictions, truth = classes()
    right = int(np.sum(predictions.predicted_class == truth))
    expected = stats.binomtest(right, N).proportion_ci(0.95, method="wilson")
    assert interval("accuracy", predictions, truth, CLASSES) == pytest.approx(tuple(expected), rel=1e-12)


def test_the_interval_of_an_auc_is_delongs() -> None:
    predictions, truth = binary(120)
    assert predictions.score is not None
    ups, downs = predictions.score[truth == "true"], predictions.score[truth == "false"]
    # By the definition: the structural components over all pairs.
    pairs = (ups[:, None] > downs) + 0.5 * (ups[:, None] == downs)
    variance = pairs.mean(axis=1).var(ddof=1) / len(ups) + pairs.mean(axis=0).var(ddof=1) / len(downs)
    low, high = stats.norm.interval(0.95, pairs.mean(), np.sqrt(variance))
    assert interval("auc", predictions, truth, BINARY) == pytest.approx(
        (max(0, low), min(1, high)), rel=1e-12
    )


@pytest.mark.parametrize(
    ("metric", "case", "contract"),
    [
        ("f1", binary(), BINARY),
        ("balanced_accuracy", binary(), BINARY),
        ("f1", classes(), CLASSES),
        ("balanced_accuracy", classes(), CLASSES),
    ],
)
def test_the_interval_of_f1_and_balanced_accuracy_is_near_that_of_the_bootstrap(
    metric: str, case: tuple[Predictions, Array], contract: ModelContract
) -> None:
    predictions, truth = case
    called = (
        predictions.predicted_class
        if predictions.score is None
        else np.where(predictions.score > 0.5, "true", "false")
    )
    average = {"pos_label": "true"} if predictions.score is not None else {"average": "macro"}
    draws = []
    for _ in range(400):
        rows = RNG.integers(0, N, N)
        if metric == "f1":
            draws.append(sk.f1_score(truth[rows], called[rows], zero_division=0, **average))
        else:
            draws.append(sk.balanced_accuracy_score(truth[rows], called[rows]))
    expected = np.quantile(draws, [0.025, 0.975])
    bounds = interval(metric, predictions, truth, contract)
    # An interval without draws and a bootstrap of some hundred draws differ by a fraction of the interval's width.
    assert bounds == pytest.approx(tuple(expected), abs=0.2 * (expected[1] - expected[0]))


def test_one_class_only_leaves_out_what_is_not_defined() -> None:
    predictions, truth = binary(40)
    truth[:] = "false"
    entries = {e["metric"]: e for e in evaluations("champion", predictions, truth, BINARY, version=3)}
    assert entries["auc"]["value"] is None
    assert entries["auc"]["low"] is None
    assert entries["accuracy"]["low"] <= entries["accuracy"]["value"] <= entries["accuracy"]["high"]


def test_the_baseline_knows_the_distribution_only() -> None:
    predictions = baseline(np.array([True, False, False, False]), 3, BINARY)
    assert predictions.score is not None
    assert predictions.score.tolist() == [0.25] * 3
    assert predictions.predicted_class is not None
    assert predictions.predicted_class.tolist() == ["false"] * 3
    value = baseline(np.array([1.0, 2.0, 6.0]), 2, NUMBER).value
    assert value is not None
    assert value.tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("metric", "value", "than", "better"),
    [
        ("auc", 0.8, 0.7, True),
        ("log_loss", 0.3, 0.4, True),
        ("bias", -0.1, 0.3, True),
        ("rmse", 2.0, 1.0, False),
    ],
)
def test_gain_is_positive_where_better(metric: str, value: float, than: float, better: bool) -> None:
    assert (METRIC[metric].better_by(value, than) > 0) is better
    assert METRIC[metric].better_by(value, than) == pytest.approx(-METRIC[metric].better_by(than, value))
