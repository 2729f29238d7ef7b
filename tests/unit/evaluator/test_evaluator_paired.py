"""Two versions on the same requests, against the same by other means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from tailrace.evaluator.counts import PerformanceCounts
from tailrace.evaluator.metrics import positive_index
from tailrace.evaluator.subject import PerformanceSubject
from tailrace.statistics.metric import PairedGain
from tailrace.statistics.metrics import METRIC
from tailrace.testing.evaluated_lane import BINARY, REGRESSION, EvaluatedLane
from tailrace.windows.subject import subject_text

CREDIT, PRICE = EvaluatedLane(BINARY), EvaluatedLane(REGRESSION)
PAIR = subject_text(PerformanceSubject(2, "shadow", "a" * 64, "", 1))


def said(score: float) -> dict[str, Any]:
    return {"score": score, "predicted_class": "true" if score > 0.5 else "false"}


def pairs(lab: EvaluatedLane, rows: list[tuple[dict[str, Any], dict[str, Any], Any]]) -> PerformanceCounts:
    records = [
        lab.outcome(
            lab.prediction(**mine, version=2, role="shadow", **({"amount": 100.0} if lab is CREDIT else {})),
            label=truth,
            champion=lab.champion(**theirs),
        )
        for mine, theirs, truth in rows
    ]
    return lab.counted(lab.lane.outcomes, records)[0, 0, PAIR]


def gains(lab: EvaluatedLane, counts: PerformanceCounts, *names: str) -> list[PairedGain]:
    return [METRIC[name].gain(counts, positive_index(lab.contract)) for name in names]


def sample(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    common = rng.normal(size=n)
    scores = [
        1 / (1 + np.exp(-(s * truth - 0.5 * s + 0.7 * common + 0.7 * rng.normal(size=n)))) for s in (2, 1.4)
    ]
    return np.round(scores[0], 2), np.round(scores[1], 2), truth


def binary(seed: int, n: int) -> tuple[PerformanceCounts, np.ndarray, np.ndarray, np.ndarray]:
    mine, theirs, truth = sample(seed, n)
    rows = [(said(float(a)), said(float(b)), bool(y)) for a, b, y in zip(mine, theirs, truth, strict=True)]
    return pairs(CREDIT, rows), mine, theirs, truth


def test_means_are_compared_by_a_paired_t_test() -> None:
    counts, mine, theirs, truth = binary(1, 80)
    brier, log_loss, accuracy = gains(CREDIT, counts, "brier", "log_loss", "accuracy")
    for gain, a, b in (
        (brier, -((mine - truth) ** 2), -((theirs - truth) ** 2)),
        (log_loss, np.log(np.where(truth, mine, 1 - mine)), np.log(np.where(truth, theirs, 1 - theirs))),
        (accuracy, ((mine > 0.5) == truth).astype(float), ((theirs > 0.5) == truth).astype(float)),
    ):
        wanted = stats.ttest_rel(a, b)
        assert gain.p_value == pytest.approx(wanted.pvalue, rel=1e-9)
        assert (gain.low, gain.high) == pytest.approx(tuple(wanted.confidence_interval()), rel=1e-9)
        assert gain.gain == pytest.approx((a - b).mean(), rel=1e-9)
        assert gain.sum == pytest.approx((a - b).sum(), rel=1e-9)
        assert gain.sum_squares == pytest.approx(((a - b) ** 2).sum(), rel=1e-9)
        assert gain.n == 80
    assert brier.version_value == pytest.approx(sk.brier_score_loss(truth, mine))
    assert brier.against_value == pytest.approx(sk.brier_score_loss(truth, theirs))


def test_aucs_are_compared_by_delong() -> None:
    counts, mine, theirs, truth = binary(2, 90)
    (gain,) = gains(CREDIT, counts, "auc")
    assert gain.version_value == pytest.approx(sk.roc_auc_score(truth, mine), abs=1e-12)
    assert gain.against_value == pytest.approx(sk.roc_auc_score(truth, theirs), abs=1e-12)

    def components(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        above = (scores[truth][:, None] > scores[~truth]) + 0.5 * (scores[truth][:, None] == scores[~truth])
        return above.mean(axis=1), above.mean(axis=0)

    (a1, a0), (b1, b0) = components(mine), components(theirs)
    error = np.sqrt((a1 - b1).var(ddof=1) / len(a1) + (a0 - b0).var(ddof=1) / len(a0))
    assert gain.p_value == pytest.approx(2 * stats.norm.sf(abs(gain.gain) / error), rel=1e-9)


@pytest.mark.parametrize("metric", ["f1", "balanced_accuracy"])
def test_metrics_of_classes_are_compared_with_the_spread_that_resampling_shows(metric: str) -> None:
    counts, mine, theirs, truth = binary(3, 150)
    (gain,) = gains(CREDIT, counts, metric)
    score = {"f1": sk.f1_score, "balanced_accuracy": sk.balanced_accuracy_score}[metric]
    assert gain.version_value == pytest.approx(score(truth, mine > 0.5))
    assert gain.against_value == pytest.approx(score(truth, theirs > 0.5))
    rng = np.random.default_rng(4)
    drawn = [rng.integers(0, 150, 150) for _ in range(400)]
    differences = [score(truth[i], mine[i] > 0.5) - score(truth[i], theirs[i] > 0.5) for i in drawn]
    assert (gain.high - gain.low) / (2 * 1.96) == pytest.approx(np.std(differences), rel=0.15)


@pytest.mark.parametrize("metric", ["rmse", "bias"])
def test_metrics_of_residuals_are_compared_with_the_spread_that_resampling_shows(metric: str) -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(size=150)
    common = rng.normal(size=150)
    mine = truth + 0.3 + 0.5 * common + 0.3 * rng.normal(size=150)
    theirs = truth - 0.5 + 0.5 * common + 0.6 * rng.normal(size=150)
    rows = [
        ({"value": a}, {"value": b}, y)
        for a, b, y in zip(mine.tolist(), theirs.tolist(), truth.tolist(), strict=True)
    ]
    (gain,) = gains(PRICE, pairs(PRICE, rows), metric)

    def score(i: np.ndarray, values: np.ndarray) -> float:
        residual = values[i] - truth[i]
        return abs(residual.mean()) if metric == "bias" else np.sqrt((residual**2).mean())

    everything = np.arange(150)
    assert gain.gain == pytest.approx(score(everything, theirs) - score(everything, mine))
    drawn = [rng.integers(0, 150, 150) for _ in range(400)]
    assert (gain.high - gain.low) / (2 * 1.96) == pytest.approx(
        np.std([score(i, theirs) - score(i, mine) for i in drawn]), rel=0.15
    )


def test_value_is_what_either_policy_would_have_been_worth() -> None:
    rows = [
        ({**said(0.2), "action": "approve"}, {**said(0.7), "action": "refuse"}, False),
        ({**said(0.2), "action": "approve"}, {**said(0.7), "action": "refuse"}, True),
        ({**said(0.8), "action": "refuse"}, {**said(0.3), "action": "approve"}, True),
    ]
    (gain,) = gains(CREDIT, pairs(CREDIT, rows), "value")
    assert (gain.version_value, gain.against_value) == pytest.approx(((4 - 60) / 3, -60 / 3))
    assert gain.gain == pytest.approx(4 / 3)
    assert gain.sum == pytest.approx(4)


def test_a_version_that_says_the_same_gains_nothing() -> None:
    counts = pairs(
        CREDIT, [(said(s), said(s), y) for s, y in ((0.2, False), (0.7, True), (0.9, False), (0.4, True))]
    )
    for gain in gains(CREDIT, counts, "auc", "brier", "log_loss", "accuracy", "f1", "balanced_accuracy"):
        assert (gain.gain, gain.p_value) == (0.0, 1.0), gain


@pytest.mark.parametrize("metric", ["auc", "brier", "accuracy", "f1"])
def test_without_truth_nothing_is_compared(metric: str) -> None:
    assert METRIC[metric].gain(PerformanceCounts(), 1) == PairedGain(metric)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), min_size=2, max_size=20),
    st.randoms(),
)
def test_parts_of_pairs_add_up_in_any_order(rows: list[tuple[float, float, bool]], random: Any) -> None:
    given_rows = [(said(a), said(b), y) for a, b, y in rows]
    shuffled = random.sample(given_rows, len(rows))
    cut = random.randint(1, len(rows) - 1)
    parts = [pairs(CREDIT, part) for part in (shuffled[:cut], shuffled[cut:])]
    assert (parts[0] + parts[1]).to_bytes() == pairs(CREDIT, given_rows).to_bytes()
