"""Live coverage: the share of outcomes that the set or interval behind the answer held; and flags in the value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.support import models
from tests.unit.evaluator.test_evaluator_logic import GOOD, Evaluation, metrics

from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.guards.conformal import Quantiles
from tailrace.models.guards.prediction_sets import PredictionSets
from tailrace.models.package.build import build_package
from tailrace.scorer.rows import Findings
from tailrace.scorer.steps.guards import note_uncertainty
from tailrace.testing.evaluated_lane import BINARY, MULTICLASS, REGRESSION, EvaluatedLane

COVERAGE = "\nguardrails: {coverage: 90%}\n"
KNOWN = Quantiles(rows=100, levels=(0.9,), values=(0.5,))


def evaluation(text: str, conformal: Quantiles | None = KNOWN) -> Evaluation:
    return Evaluation(EvaluatedLane(text, holdouts={1: GOOD, 2: GOOD}, conformal=conformal))


def judged(e: Evaluation, rows: list[tuple[dict[str, Any], Any]]) -> dict[str, Any]:
    """The report of predictions with their truths."""
    made = [
        e.lab.prediction(prediction_id=str(at), event_time=at, **answer)
        for at, (answer, _) in enumerate(rows)
    ]
    e.predict(*made)
    e.learn(*(e.lab.outcome(p, label=truth) for p, (_, truth) in zip(made, rows, strict=True)))
    return e.report()


def sure(name: str, **more: Any) -> dict[str, Any]:
    return {"score": 0.9 if name == "true" else 0.1, "predicted_class": name, "action": "approve"} | more


def test_a_set_covers_the_classes_that_it_names() -> None:
    both: list[str] = ["false", "true"]
    report = judged(
        evaluation(BINARY + COVERAGE),
        [
            (sure("true", prediction_set=["true"]), True),
            (sure("true", prediction_set=["true"]), False),
            (sure("false", prediction_set=both), True),
            (sure("false", prediction_set=[]), False),
            (sure("false", prediction_set=["false"]), False),
            # Another answered: nothing is said of the version's own sets.
            (sure("false", prediction_set=both, served_by="previous"), True),
            # The package did not know, or the contract did not ask yet.
            (sure("false"), False),
        ],
    )
    coverage = metrics(report)["coverage"]
    assert (coverage["value"], coverage["n"], coverage["interval"]) == (3 / 5, 5, "wilson")
    low, high = stats.binomtest(3, 5).proportion_ci(method="wilson")
    assert (coverage["low"], coverage["high"]) == (pytest.approx(low), pytest.approx(high))


def test_several_classes_and_values_are_covered_alike() -> None:
    iris = {"predicted_class": "iris", "probabilities": {"iris": 0.5, "rose": 0.1, "tulip": 0.4}}
    flowers = [({**iris, "prediction_set": ["iris", "tulip"]}, truth) for truth in ("iris", "tulip", "rose")]
    one = {**iris, "prediction_set": ["iris"]}
    report = metrics(judged(evaluation(MULTICLASS + COVERAGE), [*flowers, (one, "iris")]))
    assert report["coverage"]["value"] == 3 / 4
    within = {"interval_low": 1.5, "interval_high": 2.5}
    prices = [({"value": 2.0, **within}, truth) for truth in (1.5, 2.5, 2.6)]
    report = metrics(judged(evaluation(REGRESSION + COVERAGE), [*prices, ({"value": 2.0}, 2.0)]))
    assert (report["coverage"]["value"], report["coverage"]["n"]) == (2 / 3, 3)


def test_a_corrected_label_is_taken_back() -> None:
    e = evaluation(BINARY + COVERAGE)
    made = e.lab.prediction(**sure("true", prediction_set=["true"]))
    first = e.lab.outcome(made, label=True)
    before = {"state": "labelled", "label": True, "action_taken": None}
    second = e.lab.outcome(made, label=False, revision=2, replaces="o", before=before)
    e.predict(made)
    e.learn(first, second)
    assert (metrics(e.report())["coverage"]["value"], metrics(e.report())["coverage"]["n"]) == (0.0, 1)


@pytest.mark.parametrize(("text", "conformal"), [(BINARY, KNOWN), (BINARY + COVERAGE, None)])
def test_nothing_is_said_where_nobody_asks_or_the_package_does_not_know(
    text: str, conformal: Quantiles | None
) -> None:
    assert "coverage" not in metrics(judged(evaluation(text, conformal), [(sure("true"), True)]))


VALUE = (
    BINARY[: BINARY.index("value:")] + "value: 'CASE WHEN uncertain THEN 10 WHEN guarded THEN 5 ELSE 1 END'\n"
)


def test_the_value_reads_what_the_policy_saw() -> None:
    unsure: list[str] = ["false", "true"]
    report = judged(
        evaluation(VALUE),
        [
            (sure("true"), True),
            (sure("true", prediction_set=["true"]), True),
            (sure("true", prediction_set=unsure), True),
            (sure("true", prediction_set=[]), True),
            (sure("true", guarded=True), True),
            (sure("true", prediction_set=unsure, served_by="previous"), True),
            (sure("true", guarded=True, prediction_set=unsure), True),
        ],
    )
    assert report["value_total"] == 1 + 1 + 10 + 10 + 5 + 10 + 10


def test_where_nobody_knows_what_was_found_the_value_is_unknown() -> None:
    e = evaluation(VALUE)
    made = e.lab.prediction(**sure("true"), role="shadow", version=2)
    e.predict(made)
    e.learn(e.lab.outcome(made, label=True, champion=e.lab.champion(score=0.2, predicted_class="false")))
    assert e.report(role="shadow", version=2)["value_total"] == 1.0
    paired = e.report(role="shadow", version=2, against=1)["paired"]
    assert {p["metric"]: p["n"] for p in paired}["value"] == 0
    assert {p["metric"]: p["n"] for p in paired}["accuracy"] == 1


def test_reported_coverage_is_that_of_the_truths_and_what_the_package_promises() -> None:
    """The whole chain on rows that nobody has seen: package, findings, outcomes, report."""
    frame, truth = models.rows("binary", 3000, seed=1)
    built = build_package(models.estimator("logistic"), frame, truth, models.contract())
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    n = 3000
    fresh, actual = models.rows("binary", n, seed=2)
    fresh = fresh.assign(income=fresh.income.fillna(built.manifest.impute["income"]))
    predictions, notes = model.predict(models.columns_of_frame(fresh), n), Findings(n)
    note_uncertainty(notes, predictions, model, 0.9)
    assert predictions.score is not None
    assert predictions.predicted_class is not None
    assert isinstance(notes.uncertainty, PredictionSets)
    sets = [list(notes.uncertainty.sets[number]) for number in notes.uncertainty.which.tolist()]
    e = evaluation(BINARY + COVERAGE, built.manifest.conformal)
    rows = [
        (
            {
                "score": float(predictions.score[at]),
                "predicted_class": str(predictions.predicted_class[at]),
                "action": "approve",
                "prediction_set": sets[at],
            },
            bool(actual[at]),
        )
        for at in range(n)
    ]
    coverage = metrics(judged(e, rows))["coverage"]
    assert built.manifest.conformal is not None
    of_truth = np.where(actual, predictions.score, 1 - predictions.score)
    assert coverage["value"] == np.mean(1 - of_truth <= built.manifest.conformal.at(0.9))
    # A calibration of 600 rows and 3,000 of test: the coverage is binomial around one that is beta distributed.
    assert abs(coverage["value"] - 0.9) < 4 * np.sqrt(0.09 * (1 / 600 + 1 / n))


def test_findings_are_read_alike_by_columns_and_one_by_one() -> None:
    e = evaluation(BINARY + COVERAGE)
    sets = [["true"], ["car, new", "true"], None]
    made = [e.lab.prediction(event_time=at, **sure("true", prediction_set=sets[at % 3])) for at in range(21)]
    outcomes = [e.lab.outcome(p, label=at % 4 == 0) for at, p in enumerate(made)]
    topic = e.lab.lane.outcomes
    messages = e.lab.messages(topic, outcomes)
    reader = e.windows._reader

    def read(which: Any) -> list[tuple[str, ...] | None]:
        (of_contract,) = reader.read(which, e.lab.lane.name, outcomes=True).data
        assert of_contract.predicted.answers.findings is not None
        sets = of_contract.predicted.answers.findings.sets
        return [None if code < 0 else tuple(sets.known[code]) for code in sets.codes.tolist()]

    by_columns = read(messages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader._reader, "_decoder", lambda *_: None)
        assert read(messages) == by_columns == [("true",), ("car, new", "true"), None] * 7
