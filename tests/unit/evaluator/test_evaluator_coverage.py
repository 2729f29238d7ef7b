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
from tailrace.models.guards.prediction_sets import interval_of, interval_text, set_holds, set_text
from tailrace.models.package.build import build_package
from tailrace.scorer.findings import Findings
from tailrace.scorer.uncertainty import note_uncertainty
from tailrace.testing.evaluated_lane import BINARY, MULTICLASS, REGRESSION, EvaluatedLane

COVERAGE = "\nguardrails: {coverage: 90%}\n"
KNOWN = Quantiles(rows=100, levels=(0.9,), values=(0.5,))


def evaluation(text: str, conformal: Quantiles | None = KNOWN) -> Evaluation:
    return Evaluation(EvaluatedLane(text, holdouts={1: GOOD, 2: GOOD}, conformal=conformal))


def finding(guard: str, detail: str) -> dict[str, Any]:
    return {"guard": guard, "field": None, "detail": detail}


def judged(e: Evaluation, rows: list[tuple[dict[str, Any], Any]]) -> dict[str, Any]:
    """The report of predictions with their truths."""
    made = [
        e.lab.prediction(prediction_id=str(at), event_time=at, **said) for at, (said, _) in enumerate(rows)
    ]
    e.predict(*made)
    e.learn(*(e.lab.outcome(p, label=truth) for p, (_, truth) in zip(made, rows, strict=True)))
    return e.report()


def sure(name: str, **more: Any) -> dict[str, Any]:
    return {"score": 0.9 if name == "true" else 0.1, "predicted_class": name, "action": "approve"} | more


def test_a_set_covers_the_classes_that_it_names_and_without_one_the_predicted_class() -> None:
    both, none = (finding("uncertain", f"{said} at 0.9") for said in ("false, true", "no class"))
    found = judged(
        evaluation(BINARY + COVERAGE),
        [
            (sure("true"), True),
            (sure("true"), False),
            (sure("false", guardrails=[both]), True),
            (sure("false", guardrails=[none]), False),
            (sure("false", guardrails=[finding("domain", "far")]), False),
            # Another answered: nothing is said of the version's own sets.
            (sure("false", guardrails=[both], served_by="rule"), True),
        ],
    )
    coverage = metrics(found)["coverage"]
    assert (coverage["value"], coverage["n"], coverage["interval"]) == (3 / 5, 5, "wilson")
    low, high = stats.binomtest(3, 5).proportion_ci(method="wilson")
    assert (coverage["low"], coverage["high"]) == (pytest.approx(low), pytest.approx(high))


def test_several_classes_and_values_are_covered_alike() -> None:
    some = finding("uncertain", "iris, tulip at 0.9")
    said = {"predicted_class": "iris", "probabilities": {"iris": 0.5, "rose": 0.1, "tulip": 0.4}}
    flowers = [({**said, "guardrails": [some]}, truth) for truth in ("iris", "tulip", "rose")]
    found = metrics(judged(evaluation(MULTICLASS + COVERAGE), [*flowers, (said, "iris")]))
    assert found["coverage"]["value"] == 3 / 4
    within = finding("interval", "1.5 to 2.5 at 0.9")
    prices = [({"value": 2.0, "guardrails": [within]}, truth) for truth in (1.5, 2.5, 2.6)]
    found = metrics(judged(evaluation(REGRESSION + COVERAGE), [*prices, ({"value": 2.0}, 2.0)]))
    assert (found["coverage"]["value"], found["coverage"]["n"]) == (2 / 3, 3)


def test_a_corrected_label_is_taken_back() -> None:
    e = evaluation(BINARY + COVERAGE)
    made = e.lab.prediction(**sure("true"))
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
    unsure, far, beyond = (
        finding("uncertain", "false, true at 0.9"),
        finding("domain", "x"),
        finding("score", "x"),
    )
    found = judged(
        evaluation(VALUE),
        [
            (sure("true"), True),
            (sure("true", guardrails=[unsure]), True),
            (sure("true", guardrails=[far]), True),
            (sure("true", guardrails=[beyond]), True),
            # The fallback's answer is not the one that was beyond its bounds.
            (sure("true", guardrails=[beyond], served_by="previous"), True),
            (sure("true", guardrails=[far, unsure]), True),
        ],
    )
    assert found["value_total"] == 1 + 10 + 5 + 5 + 1 + 10


def test_where_nobody_knows_what_was_found_the_value_is_unknown() -> None:
    e = evaluation(VALUE)
    made = e.lab.prediction(**sure("true"), role="shadow", version=2)
    e.predict(made)
    e.learn(e.lab.outcome(made, label=True, champion=e.lab.champion(score=0.2, predicted_class="false")))
    assert e.report(role="shadow", version=2)["value_total"] == 1.0
    paired = e.report(role="shadow", version=2, against=1)["paired"]
    assert {p["metric"]: p["n"] for p in paired}["value"] == 0
    assert {p["metric"]: p["n"] for p in paired}["accuracy"] == 1


def test_what_is_written_is_read() -> None:
    assert set_text([], 0.9) == "no class at 0.9"
    text = set_text(["a", "b at c", "d"], 0.95)
    assert [set_holds(text, name) for name in ("a", "b at c", "d", "b", "c", "no class")] == [True] * 3 + [
        False
    ] * 3
    assert interval_of(interval_text(-1.25, 1e9, 0.9)) == (-1.25, 1e9)


def test_reported_coverage_is_that_of_the_truths_and_what_the_package_promises() -> None:
    """The whole chain on rows that nobody has seen: package, findings, outcomes, report."""
    frame, truth = models.rows("binary", 3000, seed=1)
    built = build_package(models.estimator("logistic"), frame, truth, models.contract())
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    n = 3000
    fresh, actual = models.rows("binary", n, seed=2)
    fresh = fresh.assign(income=fresh.income.fillna(built.manifest.impute["income"]))
    found, notes = model.predict(models.columns_of_frame(fresh), n), Findings(n)
    note_uncertainty(notes, found, model, 0.9)
    assert found.score is not None
    assert found.predicted_class is not None
    e = evaluation(BINARY + COVERAGE, built.manifest.conformal)
    rows = [
        (
            {
                "score": float(found.score[at]),
                "predicted_class": str(found.predicted_class[at]),
                "action": "approve",
                "guardrails": [f._asdict() for f in notes.kinds[notes.which[at]]],
            },
            bool(actual[at]),
        )
        for at in range(n)
    ]
    coverage = metrics(judged(e, rows))["coverage"]
    assert built.manifest.conformal is not None
    of_truth = np.where(actual, found.score, 1 - found.score)
    assert coverage["value"] == np.mean(1 - of_truth <= built.manifest.conformal.at(0.9))
    # A calibration of 600 rows and 3,000 of test: the coverage is binomial around one that is beta distributed.
    assert abs(coverage["value"] - 0.9) < 4 * np.sqrt(0.09 * (1 / 600 + 1 / n))


def test_findings_are_read_alike_by_columns_and_one_by_one() -> None:
    e = evaluation(BINARY + COVERAGE)
    both = finding("uncertain", "false, true at 0.9")
    made = [e.lab.prediction(event_time=at, **sure("true", guardrails=[both] * (at % 2))) for at in range(20)]
    outcomes = [e.lab.outcome(p, label=at % 4 == 0) for at, p in enumerate(made)]
    topic = e.lab.lane.outcomes
    messages = e.lab.messages(topic, outcomes)
    reader = e.windows._reader

    def read(which: Any) -> list[str | None]:
        (found,) = reader.read(which, e.lab.lane.name, outcomes=True).found
        assert found.predicted.answers.findings is not None
        return found.predicted.answers.findings.sets

    by_columns = read(messages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader._reader, "_decoder", lambda *_: None)
        assert read(messages) == by_columns == ["", both["detail"]] * 10
