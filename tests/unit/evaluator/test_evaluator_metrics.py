"""Metrics from counts equal scikit-learn's on the rows; intervals hold what they promise."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from tailrace.evaluator.counts import PerformanceCounts
from tailrace.evaluator.metrics import metrics_of, positive_index
from tailrace.evaluator.subject import PerformanceSubject
from tailrace.models.package.holdout_metrics import holdout_metrics
from tailrace.models.predictions import Predictions
from tailrace.statistics.metric import Estimate
from tailrace.statistics.metrics import METRIC
from tailrace.testing.evaluated_lane import BINARY, MULTICLASS, REGRESSION, EvaluatedLane
from tailrace.windows.subject import subject_text

LABS = {
    name: EvaluatedLane(text)
    for name, text in (("binary", BINARY), ("multi", MULTICLASS), ("number", REGRESSION))
}
KINDS = ["iris", "rose", "tulip"]
WHOLE = subject_text(PerformanceSubject(1, "champion", "a" * 64, ""))


def counts_of(lab: EvaluatedLane, rows: list[tuple[dict[str, Any], Any]]) -> PerformanceCounts:
    """Counts of all rows, each what was said and what is true."""
    topic = lab.lane.outcomes
    records = [lab.outcome(lab.prediction(**answer), label=truth) for answer, truth in rows]
    return lab.counted(topic, records)[0, 0, WHOLE]


def estimates(lab: EvaluatedLane, rows: list[tuple[dict[str, Any], Any]]) -> dict[str, Estimate]:
    counts = counts_of(lab, rows)
    positive = positive_index(lab.contract)
    return {metric.name: metric.estimate(counts, positive) for metric in metrics_of(lab.contract)}


def said_binary(score: float) -> dict[str, Any]:
    return {"score": score, "predicted_class": "true" if score > 0.5 else "false"}


def assert_equal(estimated: dict[str, Estimate], wanted: dict[str, float], n: int) -> None:
    for name, one in estimated.items():
        assert one.n == n
        if name in wanted:
            assert one.value == pytest.approx(wanted[name], rel=1e-9, abs=1e-9), name
        else:
            assert one.value is None, name
        if one.low is not None:
            assert one.low <= one.value <= one.high or name == "balanced_accuracy"


SCORES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1e-300, 1 - 2**-53]))


@settings(max_examples=60)
@given(st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=40))
def test_binary_metrics_equal_those_of_a_holdout_and_of_sklearn(rows: list[tuple[float, bool]]) -> None:
    estimated = estimates(LABS["binary"], [(said_binary(s), y) for s, y in rows])
    scores, truth = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    wanted = holdout_metrics(
        Predictions(np.column_stack([1 - scores, scores]), scores, None, ("false", "true")),
        np.where(truth, "true", "false"),
        "true",
    )
    assert_equal(estimated, wanted, len(rows))
    if 0 < truth.sum() < len(truth):
        assert estimated["auc"].value == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
        assert estimated["auc"].error is None


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.integers(0, 2)),
        min_size=1,
        max_size=40,
    )
)
def test_multiclass_metrics_equal_those_of_a_holdout(rows: list[tuple[list[float], int]]) -> None:
    probabilities = np.array([np.array(p) / sum(p) for p, _ in rows])
    chosen = probabilities.argmax(axis=1)
    estimated = estimates(
        LABS["multi"],
        [
            (
                {"probabilities": dict(zip(KINDS, p.tolist(), strict=True)), "predicted_class": KINDS[c]},
                KINDS[y],
            )
            for p, c, (_, y) in zip(probabilities, chosen, rows, strict=True)
        ],
    )
    truth = np.array([KINDS[y] for _, y in rows])
    wanted = holdout_metrics(Predictions(probabilities, None, None, tuple(KINDS)), truth, None)
    assert_equal(estimated, wanted, len(rows))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=40))
def test_regression_metrics_equal_those_of_a_holdout(rows: list[tuple[float, float]]) -> None:
    estimated = estimates(LABS["number"], [({"value": v}, y) for v, y in rows])
    values, truth = np.array([v for v, _ in rows]), np.array([y for _, y in rows])
    assert_equal(estimated, holdout_metrics(Predictions(None, None, values, ()), truth, None), len(rows))


def test_a_number_whose_square_is_beyond_all_floats_leaves_metrics_undefined_until_it_is_taken_back() -> None:
    lab, rows = LABS["number"], [({"value": 1e308}, -1e308), ({"value": 1.0}, 2.0)]
    assert {one.value for one in estimates(lab, rows).values()} == {None}
    corrected = lab.outcome(
        lab.prediction(value=1e308), label=1e308, before={"state": "labelled", "label": -1e308}
    )
    counts = counts_of(lab, rows) + lab.counted(lab.lane.outcomes, [corrected])[0, 0, WHOLE]
    assert METRIC["mae"].estimate(counts, None).value == 0.5


def test_one_row_has_values_and_no_intervals_of_means() -> None:
    estimated = estimates(LABS["binary"], [(said_binary(0.3), True)])
    assert estimated["accuracy"].value == 0.0
    assert estimated["accuracy"].high == pytest.approx(0.7934506856227626)
    assert (estimated["log_loss"].low, estimated["log_loss"].high) == (None, None)
    assert estimated["auc"].value is None


def test_constant_scores_have_an_auc_of_a_half_for_certain() -> None:
    estimated = estimates(LABS["binary"], [(said_binary(0.3), y) for y in (True, False, True, False)])
    assert (estimated["auc"].value, estimated["auc"].low, estimated["auc"].high) == (0.5, 0.5, 0.5)


def test_perfect_separation_says_nothing_of_how_sure_it_is() -> None:
    estimated = estimates(LABS["binary"], [(said_binary(s), s > 0.5) for s in (0.1, 0.2, 0.8, 0.9)])
    assert (estimated["auc"].value, estimated["auc"].low, estimated["auc"].high) == (1.0, None, None)


def test_an_answer_without_a_score_counts_as_labelled_and_is_in_no_metric() -> None:
    counts = counts_of(LABS["binary"], [({}, True), (said_binary(0.7), True)])
    assert counts.tallies["labelled"] == 2
    assert {METRIC[m].estimate(counts, 1).n for m in ("accuracy", "log_loss", "auc")} == {1}


# Intervals ---


def test_delongs_variance_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(60) < 0.4
    scores = np.round(np.clip(0.3 * truth + rng.random(60) * 0.7, 0, 1), 1)
    estimated = estimates(
        LABS["binary"], [(said_binary(float(s)), bool(y)) for s, y in zip(scores, truth, strict=True)]
    )
    above = (scores[truth][:, None] > scores[~truth][None, :]) + 0.5 * (
        scores[truth][:, None] == scores[~truth][None, :]
    )
    wanted = above.mean(axis=1).var(ddof=1) / truth.sum() + above.mean(axis=0).var(ddof=1) / (~truth).sum()
    assert estimated["auc"].variance == pytest.approx(wanted, rel=1e-12)


def test_intervals_of_means_and_shares_are_scipys() -> None:
    rng = np.random.default_rng(2)
    truth, scores = rng.random(50) < 0.5, rng.random(50)
    estimated = estimates(
        LABS["binary"], [(said_binary(float(s)), bool(y)) for s, y in zip(scores, truth, strict=True)]
    )
    losses = (scores - truth) ** 2
    wanted = stats.t.interval(0.95, 49, losses.mean(), stats.sem(losses))
    assert (estimated["brier"].low, estimated["brier"].high) == pytest.approx(wanted, rel=1e-12)
    right = int(((scores > 0.5) == truth).sum())
    share = stats.binomtest(right, 50).proportion_ci(method="wilson")
    assert (estimated["accuracy"].low, estimated["accuracy"].high) == pytest.approx(
        (share.low, share.high), rel=1e-12
    )


@pytest.mark.parametrize("kind", ["binary", "multi", "number"])
def test_intervals_hold_the_truth_nineteen_times_in_twenty(kind: str) -> None:
    """500 rows are the truth; 120 drawn with replacement, 150 times, give the intervals. 150 trials of 0.95 stay
    from 0.88 to 0.999 but once in 1,000."""
    rng = np.random.default_rng(7)
    lab, size = LABS[kind], 500
    truth: list[Any]
    answers: list[dict[str, Any]]
    if kind == "number":
        truth = rng.normal(size=size).tolist()
        answers = [{"value": v + 0.2 + 0.5 * e} for v, e in zip(truth, rng.normal(size=size), strict=True)]
    elif kind == "binary":
        truth = (rng.random(size) < 0.4).tolist()
        scores = 1 / (1 + np.exp(-(1.5 * np.array(truth) - 0.75 + rng.normal(size=size))))
        answers = [said_binary(float(score)) for score in scores]
    else:
        numbers = rng.integers(0, 3, size)
        chosen = np.where(rng.random(size) < 0.6, numbers, rng.integers(0, 3, size))
        truth = [KINDS[n] for n in numbers]
        answers = [
            {"probabilities": dict.fromkeys(KINDS, 1 / 3), "predicted_class": KINDS[c]} for c in chosen
        ]
    wanted = estimates(lab, list(zip(answers, truth, strict=True)))
    windows = lab.windows()
    messages = lab.messages(
        lab.lane.outcomes,
        [lab.outcome(lab.prediction(**one), label=y) for one, y in zip(answers, truth, strict=True)],
    )
    held = dict.fromkeys(wanted, 0)
    for _ in range(150):
        rows = windows.read(lab.lane.outcomes, [messages[i] for i in rng.integers(0, size, 120)])
        drawn = next(
            windows.add(None, cell.counts)
            for _, cell in windows.count(lab.lane.outcomes, rows, rows.times)
            if cell.subject == WHOLE
        )
        for name in held:
            one = METRIC[name].estimate(drawn, positive_index(lab.contract))
            held[name] += one.low <= wanted[name].value <= one.high
    if kind == "multi":  # always a third for each: these do not vary
        assert held.pop("log_loss") == held.pop("brier") == 150
    assert all(0.88 <= n / 150 <= 0.999 for n in held.values()), held


# Adding up ---


@settings(max_examples=40)
@given(st.lists(st.tuples(SCORES, st.booleans()), min_size=2, max_size=30), st.randoms())
def test_parts_add_up_to_the_same_bytes_in_any_order(rows: list[tuple[float, bool]], random: Any) -> None:
    answers = [(said_binary(s), y) for s, y in rows]
    whole = counts_of(LABS["binary"], answers).to_bytes()
    shuffled = random.sample(answers, len(answers))
    cut = random.randint(1, len(answers) - 1)
    parts = [counts_of(LABS["binary"], part) for part in (shuffled[:cut], shuffled[cut:])]
    assert (parts[0] + parts[1]).to_bytes() == whole
    assert (parts[1] + PerformanceCounts.from_bytes(parts[0].to_bytes())).to_bytes() == whole


def test_the_form_is_json_and_numbers() -> None:
    line, _, _ = counts_of(LABS["binary"], [(said_binary(0.25), True)]).to_bytes().partition(b"\n")
    head = json.loads(line)
    assert head["tallies"] == {"labelled": 1}
    assert head["table"] == [[1, 0, 1]]
    assert head["sums"]["brier"] == [1, 9, 1074 - 4, 81, 1074 - 8, 0]


def test_the_variance_of_an_rmse_is_that_of_the_mean_square_by_the_delta_method() -> None:
    rng = np.random.default_rng(5)
    errors = rng.normal(size=400)
    rmse = estimates(LABS["number"], [({"value": float(e)}, 0.0) for e in errors])["rmse"]
    squares = errors**2
    assert rmse.variance == pytest.approx(squares.var(ddof=1) / 400 / (4 * squares.mean()), rel=1e-9)
    # And it is what drawing again and again comes to.
    drawn = np.sqrt((rng.normal(size=(4_000, 400)) ** 2).mean(axis=1))
    assert rmse.variance == pytest.approx(drawn.var(), rel=0.3)
