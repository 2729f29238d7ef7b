"""What is counted of predictions and outcomes, what reports say of it, and when an alert is raised and resolved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tailrace.contracts.records.lanes import ALERTS, PERFORMANCE_REPORTS
from tailrace.evaluator.subject import PerformanceSubject
from tailrace.evaluator.windows import PerformanceWindows
from tailrace.models.manifest import Holdout
from tailrace.testing.evaluated_lane import (
    ARTIFACT,
    BINARY,
    MULTICLASS,
    REGRESSION,
    SECOND,
    EvaluatedLane,
    written,
)
from tailrace.windows.kinds import NO_TIME, Closed
from tailrace.windows.subject import subject_text

GOOD = Holdout(rows=500, metrics={"accuracy": 0.9, "auc": 0.9, "brier": 0.1})
END = 10 * SECOND
Record = dict[str, Any]


class Evaluation:
    """What a lane's records come to, window by window."""

    def __init__(self, lab: EvaluatedLane) -> None:
        self.lab = lab
        self.windows: PerformanceWindows = lab.windows()
        self.cells: list[Any] = []
        self.memory: Record = {}

    def count(self, topic: str, records: Sequence[Record], before: int = NO_TIME) -> None:
        messages = self.lab.messages(topic, records)
        rows = self.windows.read(topic, messages)
        assert not rows.bad
        clocks = np.full(len(messages), before, dtype=np.int64)
        self.cells += [cell for _, cell in self.windows.count(topic, rows, clocks)]

    def predict(self, *records: Record, before: int = NO_TIME) -> None:
        shadow = records[0]["role"] == "shadow"
        lane = self.lab.lane
        self.count(lane.shadow_predictions if shadow else lane.predictions, records, before)

    def learn(self, *outcomes: Record) -> None:
        self.count(self.lab.lane.outcomes, outcomes)

    def judge(
        self, start: int = 0, age: int = 0, stream: str = "predictions"
    ) -> tuple[list[Record], list[Record]]:
        """Reports and alerts."""
        applied = self.windows.contracts().by_digest[self.lab.contract.digest]
        subjects: dict[str, Any] = {}
        for cell in self.cells:
            if (cell.stream, cell.window_start) == (stream, start) and cell.age <= age:
                subjects[cell.subject] = self.windows.add(subjects.get(cell.subject), cell.counts)
        closed = Closed(self.lab.contract.model, stream, applied, start, age, dict(sorted(subjects.items())))
        judged = self.windows.judge(closed, self.memory)
        self.memory = json.loads(json.dumps(judged.memory))
        records: dict[str, list[Record]] = {PERFORMANCE_REPORTS: [], ALERTS: []}
        names = {PERFORMANCE_REPORTS: "PerformanceReport", ALERTS: "Alert"}
        for record in judged.records:
            records[record.topic].append(self.lab.control.decode(names[record.topic], record.value))
        return records[PERFORMANCE_REPORTS], records[ALERTS]

    def report(self, start: int = 0, age: int = 0, **about: Any) -> Record:
        stream = "shadow-predictions" if about.get("role") == "shadow" else "predictions"
        wanted = {"segment": "", "against": None, "role": "champion"} | about
        matching = [
            report
            for report in self.judge(start, age, stream)[0]
            if all(report[name] == value for name, value in wanted.items())
        ]
        assert len(matching) == 1
        return matching[0]


def credit(text: str = BINARY) -> Evaluation:
    return Evaluation(EvaluatedLane(text, holdouts={1: GOOD, 2: GOOD}))


def metrics(report: Record) -> dict[str, Record]:
    return {metric["metric"]: metric for metric in report["metrics"]}


def answers(
    lab: EvaluatedLane, n: int, right: float, time: int = 0, **changed: Any
) -> tuple[list[Record], list[Record]]:
    """Predictions and their outcomes: this share of them right, both classes in turn."""
    made, known = [], []
    for i in range(n):
        truth, fine = i % 2 == 0, i < right * n
        score = 0.8 if truth == fine else 0.2
        answer = {"score": score, "predicted_class": str(score > 0.5).lower(), "action": "approve"}
        made.append(lab.prediction(prediction_id=f"{time}-{i}", event_time=time + i, **answer, **changed))
        known.append(lab.outcome(made[-1], label=truth, known_at=time + i))
    return made, known


# Counting ---


def test_predictions_and_labels_are_counted_at_the_age_by_which_they_were_known() -> None:
    e = credit()
    made = [e.lab.prediction(score=0.3, predicted_class="false", event_time=t) for t in (0, 1, END - 1)]
    e.predict(*made[:2])
    e.predict(made[2], before=END)  # the clock had passed the end of the window
    e.learn(
        *(
            e.lab.outcome(p, label=False, known_at=t)
            for p, t in zip(made, (END - 1, END, END * 3), strict=True)
        )
    )
    first, second, third = (e.report(age=age) for age in range(3))
    assert (first["predictions"], first["labelled"], first["label_share"]) == (2, 1, 0.5)
    assert (second["predictions"], second["labelled"], second["label_share"]) == (3, 2, 2 / 3)
    assert (third["predictions"], third["labelled"], third["label_share"]) == (3, 3, 1.0)
    assert [r["judged_at"] for r in (first, second, third)] == [END, END + 20_000, END + 100_000]
    assert len({r["report_id"] for r in (first, second, third)}) == 3


def test_what_is_known_after_the_last_age_is_nowhere() -> None:
    e = credit()
    made = e.lab.prediction(score=0.3, predicted_class="false")
    e.predict(made, before=END + 100_000)
    e.learn(e.lab.outcome(made, label=False, known_at=END + 100_000))
    assert e.cells == []


def test_windows_are_half_open_and_lie_before_1970_too() -> None:
    e = credit()
    e.predict(*(e.lab.prediction(event_time=t) for t in (-1, 0, END - 1, END, -END)))
    assert sorted({cell.window_start for cell in e.cells}) == [-END, 0, END]


def test_a_correction_takes_back_what_it_replaces() -> None:
    e = credit()
    made = e.lab.prediction(score=0.8, predicted_class="true", amount=100.0, action="approve", region="north")
    e.predict(made)
    e.learn(e.lab.outcome(made, label=False, known_at=5))
    before = {"state": "labelled", "label": False}
    e.learn(e.lab.outcome(made, label=True, known_at=END + 5, revision=2, before=before))
    first, second = e.report(age=0), e.report(age=1)
    assert (metrics(first)["accuracy"]["value"], first["value_total"]) == (0.0, 4.0)
    assert (metrics(second)["accuracy"]["value"], second["value_total"]) == (1.0, -60.0)
    assert (first["labelled"], second["labelled"]) == (1, 1)
    assert metrics(e.report(age=1, segment="region=north"))["brier"]["value"] == pytest.approx(0.04)


def test_what_was_really_done_decides_the_value_and_can_be_corrected_too() -> None:
    e = credit()
    made = e.lab.prediction(score=0.8, predicted_class="true", amount=100.0, action="approve")
    e.predict(made)
    e.learn(e.lab.outcome(made, label=False, known_at=5, action_taken="refuse"))
    assert e.report()["value_total"] == 0.0
    before = {"state": "labelled", "label": False, "action_taken": "refuse"}
    e.learn(e.lab.outcome(made, label=False, known_at=6, revision=2, before=before, action_taken="approve"))
    assert e.report()["value_total"] == 4.0


def test_a_request_that_was_sent_again_counts_once() -> None:
    e = credit()
    one, again = (
        e.lab.prediction(prediction_id=name, score=0.8, predicted_class="true", event_time=t)
        for name, t in (("p", 0), ("q", 1))
    )
    e.predict(one, again)
    assert e.report()["predictions"] == 2
    outcomes = [e.lab.outcome(p, label=True, known_at=5) for p in (one, again)]
    e.learn(outcomes[0], outcomes[1] | {"duplicate_of": "p"})
    before = {"state": "labelled", "label": True}
    e.learn(outcomes[1] | {"duplicate_of": "p", "revision": 2, "label": False, "before": before})
    report = e.report()
    assert (report["predictions"], report["labelled"], report["label_share"]) == (1, 1, 1.0)


def test_what_the_fallback_answered_is_counted_unless_the_model_was_off() -> None:
    e = credit()
    answered = [
        ("model", None),
        ("rule", "model-failed"),
        ("previous", "guarded"),
        ("person", "off"),
        ("rule", "guarded"),
    ]
    made = [
        e.lab.prediction(
            prediction_id=str(n),
            score=0.2,
            predicted_class="false",
            served_by=by,
            served_cause=why,
            event_time=n,
        )
        for n, (by, why) in enumerate(answered)
    ]
    e.predict(*made)
    assert [e.report()[name] for name in ("predictions", "fallbacks")] == [5, 3]
    first = e.lab.outcome(made[1], label=False, known_at=6)
    e.learn(first, e.lab.outcome(made[4], label=False, known_at=6) | {"duplicate_of": "1"})
    assert [e.report()[name] for name in ("predictions", "fallbacks")] == [4, 2]


def test_a_late_label_is_told_once_though_an_action_comes_later() -> None:
    e = credit()
    made = e.lab.prediction(score=0.8, predicted_class="true")
    e.predict(made)
    e.learn(e.lab.outcome(made, label=True, known_at=5, late=True))
    before = {"state": "labelled", "label": True}
    e.learn(
        e.lab.outcome(
            made, label=True, known_at=6, late=True, revision=2, before=before, action_taken="refuse"
        )
    )
    assert e.report()["late_labels"] == 1


def test_a_late_label_was_late_whatever_corrects_it() -> None:
    for corrected_late, late in ((False, 1), (True, 2)):
        e = credit()
        made = e.lab.prediction(score=0.8, predicted_class="true")
        e.predict(made)
        e.learn(e.lab.outcome(made, label=True, known_at=5, late=True))
        before = {"state": "labelled", "label": True}
        e.learn(e.lab.outcome(made, label=False, known_at=6, late=corrected_late, revision=2, before=before))
        report = e.report()
        assert (report["late_labels"], report["labelled"]) == (late, 1)


def test_assumed_labels_count_as_labels_and_are_named() -> None:
    e = credit()
    made = [e.lab.prediction(prediction_id=str(i), score=0.2, predicted_class="false") for i in range(2)]
    e.predict(*made)
    e.learn(
        e.lab.outcome(made[0], label=False, known_at=5, state="assumed"),
        e.lab.outcome(made[1], label=None, known_at=5, state="unlabelled"),
    )
    report = e.report()
    assert [report[name] for name in ("predictions", "labelled", "assumed", "unlabelled")] == [2, 1, 1, 1]
    assert metrics(report)["accuracy"]["value"] == 1.0


SELECTIVE = BINARY.replace("horizon: 100s", "horizon: 100s, known_only_for: [approve]")


def test_predictions_that_can_never_be_labelled_do_not_count_against_maturity() -> None:
    e = credit(SELECTIVE)
    made = [
        e.lab.prediction(prediction_id=str(i), score=0.2, predicted_class="false", action=action)
        for i, action in enumerate(["approve", "refuse", "refuse", "approve"])
    ]
    e.predict(*made)
    e.learn(e.lab.outcome(made[0], label=False, known_at=5))
    assert e.report()["label_share"] == 1 / 2
    # The second was approved after all, the fourth was not.
    e.learn(e.lab.outcome(made[1], label=False, known_at=5, action_taken="approve"))
    assert e.report()["label_share"] == 2 / 3
    e.learn(e.lab.outcome(made[3], label=None, state="unlabelled", known_at=6, action_taken="refuse"))
    report = e.report()
    assert (report["predictions"], report["label_share"], report["mature"]) == (4, 1.0, True)


def test_where_nothing_can_be_labelled_the_verdict_is_undefined() -> None:
    e = credit(SELECTIVE)
    e.predict(e.lab.prediction(score=0.8, predicted_class="true", action="refuse"))
    report = e.report()
    assert (report["label_share"], report["mature"], report["verdict"]) == (None, False, "undefined")


def test_in_shadow_what_the_champion_did_decides_whether_there_can_be_a_label() -> None:
    e = credit(SELECTIVE)
    made = [
        e.lab.prediction(
            prediction_id=str(i), version=2, role="shadow", score=0.8, predicted_class="true", action=action
        )
        for i, action in enumerate(["refuse", "approve"])
    ]
    e.predict(*made)
    assert e.report(role="shadow")["label_share"] == 0.0
    champion = {"champion": e.lab.champion(score=0.2, predicted_class="false", action="approve")}
    refused = {"champion": e.lab.champion(score=0.9, predicted_class="true", action="refuse")}
    e.learn(
        e.lab.outcome(made[0], label=True, known_at=5, **champion),
        e.lab.outcome(made[1], label=None, state="unlabelled", known_at=5, **refused),
    )
    report = e.report(role="shadow")
    assert (report["predictions"], report["label_share"]) == (2, 1.0)
    assert e.report(role="shadow", against=1)["label_share"] == 1.0


def test_slices_are_fields_and_conditions_of_the_request_as_it_was_received() -> None:
    e = credit()
    rows = [("north", True, 60.0), ("west", False, 40.0), (None, None, None)]
    e.predict(
        *(
            e.lab.prediction(prediction_id=str(i), score=0.2, region=region, employed=employed, amount=amount)
            for i, (region, employed, amount) in enumerate(rows)
        )
    )
    counts = {report["segment"]: report["predictions"] for report in e.judge()[0]}
    # West counts as east, by the contract; what is missing is in no slice.
    assert counts == {
        "": 3,
        "region=north": 1,
        "region=east": 1,
        "employed=true": 1,
        "employed=false": 1,
        "amount > 50": 1,
    }


def test_slices_of_a_gate_are_slices_too() -> None:
    lab = EvaluatedLane(BINARY + 'gates: {not_worse_on: {slices: ["income > 5"], metric: log_loss}}\n')
    e = Evaluation(lab)
    e.predict(lab.prediction(income=6.0))
    # What is said of all rows comes last, so that who decides on it knows the slices.
    assert [report["segment"] for report in e.judge()[0]] == ["income > 5", ""]


# Reports ---


def test_a_window_without_labels_is_immature_and_its_metrics_are_undefined() -> None:
    e = credit()
    e.predict(*answers(e.lab, 40, 1.0)[0])
    report = e.report()
    assert (report["verdict"], report["label_share"], report["value_total"]) == ("immature", 0.0, 0.0)
    assert all((m["value"], m["low"], m["drop"]) == (None, None, None) for m in report["metrics"])


def test_a_class_that_is_missing_leaves_the_auc_undefined_and_the_rest_defined() -> None:
    e = credit()
    made, known = answers(e.lab, 80, 1.0)
    e.predict(*made[::2])
    e.learn(*known[::2])
    report = e.report()
    assert metrics(report)["auc"]["value"] is None
    assert metrics(report)["balanced_accuracy"]["value"] == 1.0
    assert report["verdict"] == "ok"


def test_few_labels_make_no_verdict() -> None:
    e = credit()
    made, known = answers(e.lab, 29, 0.0)
    e.predict(*made)
    e.learn(*known)
    assert e.report()["verdict"] == "too-few"


def test_a_drop_is_told_against_the_holdout() -> None:
    e = credit()
    made, known = answers(e.lab, 100, 0.6)
    e.predict(*made)
    e.learn(*known)
    report = e.report()
    accuracy = metrics(report)["accuracy"]
    assert (accuracy["holdout"], accuracy["drop"]) == (0.9, pytest.approx(0.3))
    # Two shares, 60 of 100 and 450 of 500: the usual z-test.
    pooled = 510 / 600
    z = 0.3 / np.sqrt(pooled * (1 - pooled) * (1 / 100 + 1 / 500))
    from scipy.stats import norm

    assert accuracy["p_value"] == pytest.approx(norm.sf(z), rel=1e-9)
    assert report["verdict"] == "drop"
    assert report["reasons"][1].startswith("accuracy 0.6 against 0.9 on the holdout")
    assert (report["artifact_digest"], report["model"]) == (ARTIFACT, "credit")


def test_a_drop_within_what_the_contract_allows_or_by_chance_is_none() -> None:
    for n, right in ((400, 0.82), (32, 0.78)):
        e = credit(BINARY.replace("drop: {accuracy: 0.1, auc: 0.1}", "drop: {accuracy: 0.1}"))
        made, known = answers(e.lab, n, right)
        e.predict(*made)
        e.learn(*known)
        assert e.report()["verdict"] == "ok"


def test_without_a_package_that_can_be_trusted_there_is_no_verdict_on_a_drop() -> None:
    e = Evaluation(EvaluatedLane(BINARY))
    made, known = answers(e.lab, 40, 0.5)
    e.predict(*made)
    e.learn(*known)
    report = e.report()
    assert report["verdict"] == "undefined"
    assert metrics(report)["accuracy"]["holdout"] is None


def test_a_slice_is_not_compared_with_the_holdout_of_all_rows() -> None:
    e = credit()
    made, known = answers(e.lab, 100, 0.1, region="north")
    e.predict(*made)
    e.learn(*known)
    report = e.report(segment="region=north")
    assert (report["verdict"], metrics(report)["accuracy"]["drop"]) == ("ok", None)


@pytest.mark.parametrize(("text", "metric"), [(MULTICLASS, "log_loss"), (REGRESSION, "rmse")])
def test_other_tasks_are_judged_alike(text: str, metric: str) -> None:
    e = Evaluation(EvaluatedLane(text))
    if metric == "rmse":
        answer, truth, other = {"value": 2.0}, 1.0, {"value": 4.0}
    else:
        answer, truth = {"probabilities": {"iris": 0.7, "rose": 0.3}, "predicted_class": "iris"}, "iris"
        other = {"probabilities": {"iris": 0.2, "tulip": 0.8}, "predicted_class": "tulip"}
    made = [e.lab.prediction(prediction_id=str(i), version=2, role="shadow", **answer) for i in range(40)]
    e.predict(*made)
    e.learn(*(e.lab.outcome(p, label=truth, known_at=5, champion=e.lab.champion(**other)) for p in made))
    single, pair = e.report(role="shadow"), e.report(role="shadow", against=1)
    assert metrics(single)[metric]["value"] == pytest.approx(1.0 if metric == "rmse" else -np.log(0.7))
    gains = {gain["metric"]: gain for gain in pair["paired"]}
    assert gains[metric]["gain"] == pytest.approx(2.0 if metric == "rmse" else np.log(0.7) - np.log(0.2))
    assert single["value_mean"] == pytest.approx(1.0 if metric == "rmse" else 0.7)
    assert gains["value"]["against_value"] == pytest.approx(3.0 if metric == "rmse" else -1.0)


# Alerts ---


def window(
    e: Evaluation, number: int, right: float, age: int = 1, version: int = 1, **changed: Any
) -> list[Record]:
    """A window of 100 predictions, and the alerts when it is judged at an age."""
    made, known = answers(e.lab, 100, right, number * END, version=version, **changed)
    e.predict(*made)
    e.learn(*known)
    return e.judge(number * END, age)[1]


def test_an_alert_is_raised_once_lasts_and_is_resolved_by_a_good_window() -> None:
    e = credit()
    assert window(e, 0, 0.9) == []
    (raised,) = window(e, 1, 0.6)
    assert window(e, 2, 0.5) == []
    (resolved,) = window(e, 3, 0.9)
    assert (raised["state"], raised["kind"], raised["severity"]) == ("raised", "quality-drop", "severe")
    assert raised["detail"]["window_start"] == str(END)
    assert raised["detail"]["metrics"] == "auc,accuracy"
    assert resolved["alert_id"] == raised["alert_id"]
    assert (resolved["state"], resolved["version"], resolved["model"]) == ("resolved", 1, "credit")
    assert window(e, 4, 0.9) == []
    (again,) = window(e, 5, 0.5)
    assert again["alert_id"] != raised["alert_id"]


def test_an_alert_that_lasts_is_told_again_after_the_contracts_silence() -> None:
    e = credit(BINARY + "alerts: {silence: 20s, severe: [quality drop of auc]}\n")
    sent = [bool(window(e, number, 0.5)) for number in range(5)]
    assert sent == [True, False, True, False, True]


def test_a_drop_is_severe_as_the_contract_says() -> None:
    e = credit(BINARY + "alerts: {severe: [quality drop of brier]}\n")
    assert window(e, 0, 0.5)[0]["severity"] == "warning"


def test_an_older_window_at_a_later_age_changes_nothing_that_a_younger_one_settled() -> None:
    e = credit()
    (raised,) = window(e, 0, 0.5, age=0)
    (resolved,) = window(e, 1, 0.9, age=0)
    assert e.judge(0, 1)[1] == []
    assert raised["alert_id"] == resolved["alert_id"]


def test_a_window_judged_again_with_more_labels_raises_or_resolves() -> None:
    e = credit()
    made, known = answers(e.lab, 100, 1.0)
    e.predict(*made)
    wrong = [o | {"label": not o["label"], "known_at": 5} for o in known]
    e.learn(*wrong)
    assert [a["state"] for a in e.judge(0, 0)[1]] == ["raised"]
    before = [{"state": "labelled", "label": o["label"]} for o in wrong]
    e.learn(
        *(o | {"revision": 2, "known_at": END + 1, "before": b} for o, b in zip(known, before, strict=True))
    )
    assert [a["state"] for a in e.judge(0, 1)[1]] == ["resolved"]


def test_an_alert_about_a_version_that_answers_no_more_is_resolved_and_none_is_raised() -> None:
    e = credit()
    (raised,) = window(e, 0, 0.5, version=1)
    (resolved,) = window(e, 1, 0.9, version=2)
    assert (resolved["alert_id"], resolved["version"]) == (raised["alert_id"], 1)
    assert "answers no more" in resolved["summary"]
    assert e.judge(0, 2)[1] == []


def test_who_answered_in_a_window_under_either_of_its_contracts_answers_still() -> None:
    e = credit()
    (raised,) = window(e, 0, 0.5, version=1)
    # The same window once more, as it is judged under another contract, under which version 2 answered.
    e.cells = []
    made, _ = answers(e.lab, 100, 0.9, version=2)
    e.predict(*made)
    assert e.judge(0, 0)[1] == []
    assert e.memory["answers"]["versions"] == [1, 2]
    (resolved,) = window(e, 1, 0.9, version=1)
    assert (resolved["alert_id"], resolved["state"]) == (raised["alert_id"], "resolved")
    assert "as good as it was" in resolved["summary"]


def test_in_an_experiment_over_all_keys_the_champions_arm_raises_alerts_and_no_other() -> None:
    e = credit()
    assert window(e, 0, 0.5, role="arm", arm="b", version=2) == []
    (raised,) = window(e, 1, 0.5, role="arm", arm="a")
    assert (raised["kind"], raised["version"], raised["state"]) == ("quality-drop", 1, "raised")
    assert window(e, 2, 0.5) == []  # the experiment is over, the drop is not
    (resolved,) = window(e, 3, 0.9, role="arm", arm="a")
    assert (resolved["alert_id"], resolved["state"]) == (raised["alert_id"], "resolved")
    assert {r["role"] for r in e.judge(3 * END, 1)[0]} == {"arm"}


def test_where_the_champion_answers_beside_its_arm_what_it_answers_as_champion_is_judged() -> None:
    e = credit()
    for time, role, arm, right in ((0, "arm", "a", 0.5), (200, "champion", None, 0.9)):
        made, known = answers(e.lab, 100, right, time, role=role, arm=arm)
        e.predict(*made)
        e.learn(*known)
    reports, alerts = e.judge(0, 1)
    assert {(r["role"], r["verdict"]) for r in reports if not r["segment"]} == {
        ("arm", "drop"),
        ("champion", "ok"),
    }
    assert alerts == []


def test_immature_windows_and_shadows_raise_nothing() -> None:
    e = credit()
    made, known = answers(e.lab, 100, 0.5)
    e.predict(*made)
    e.learn(*known[:79])
    assert e.judge(0, 0)[1] == []
    made, known = answers(e.lab, 100, 0.5, role="shadow", version=2)
    e.predict(*made)
    e.learn(*known)
    reports, alerts = e.judge(0, 0, "shadow-predictions")
    assert {report["verdict"] for report in reports if not report["segment"]} == {"drop"}
    assert alerts == []


# Reading ---


def test_what_cannot_be_used_is_said_why() -> None:
    lab = EvaluatedLane(MULTICLASS)
    windows, topic = lab.windows(), lab.lane.outcomes
    made = lab.prediction(predicted_class="iris", probabilities={"iris": 1.0})
    good = lab.encode(topic, lab.outcome(made, label="iris"))
    values = [
        good,
        b"",
        b"{}",
        good[:-3],
        good + b"x",
        b"\0\0\0\x99\x99" + good[5:],
        lab.encode(topic, lab.outcome(made, label="weed")),
        lab.encode(topic, lab.outcome(made | {"contract_digest": "f" * 64}, label="iris")),
        lab.encode(topic, lab.outcome(made | {"event_time": 2**42}, label="iris")),
    ]
    rows = windows.read(topic, [written(topic, value) for value in values])
    assert {at: bad.code for at, bad in rows.bad.items()} == {
        1: "empty",
        2: "wrong-magic",
        3: "truncated",
        4: "trailing-bytes",
        5: "unknown-schema",
        6: "unseen-category",
        7: "unknown-contract",
        8: "event-time-ahead",
    }
    (cell,) = (cell for _, cell in windows.count(topic, rows, rows.times))
    assert windows.add(None, cell.counts).tallies["labelled"] == 1


def test_a_label_that_is_no_number_is_bad() -> None:
    lab = EvaluatedLane(REGRESSION)
    outcome = lab.encode(lab.lane.outcomes, lab.outcome(lab.prediction(value=1.0), label=float("inf")))
    rows = lab.windows().read(lab.lane.outcomes, [written(lab.lane.outcomes, outcome)])
    assert rows.bad[0].code == "not-finite"


def test_columns_and_the_plain_codec_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = EvaluatedLane(BINARY)
    made, known = answers(lab, 20, 0.7, region="north", employed=True, amount=3.0)
    known += [
        lab.outcome(made[0], label=None, state="unlabelled"),
        lab.outcome(
            made[1] | {"role": "shadow", "score": None, "predicted_class": None},
            label=True,
            revision=3,
            before={"state": "assumed", "label": False, "action_taken": "refuse"},
            action_taken="approve",
            late=True,
            champion=lab.champion(version=4, score=0.5, predicted_class="false"),
        ),
    ]
    fast = lab.counted(lab.lane.outcomes, known)
    monkeypatch.setattr("tailrace.evaluator.fields.FieldReader._decoder", lambda *_: None)
    plain = lab.counted(lab.lane.outcomes, known)
    assert {k: c.to_bytes() for k, c in fast.items()} == {k: c.to_bytes() for k, c in plain.items()}
    assert subject_text(PerformanceSubject(1, "shadow", ARTIFACT, "", 4)) in {
        subject for _, _, subject in fast
    }


def test_a_contract_that_has_not_come_this_way_is_looked_for() -> None:
    lab = EvaluatedLane(BINARY)
    windows = lab.windows(know=False)
    assert windows.topics() == frozenset()
    assert len(lab.counted(lab.lane.predictions, [lab.prediction()], windows)) == 1
    assert lab.lane.outcomes in windows.topics()


# Levels of service ---

LEVELS = (
    BINARY
    + "service_levels: {latency_p99: 50ms}\n"
    + "rollout: {back_if: {fallback_share: 2%}}\n"
    + "alerts: {silence: 20s, severe: [fallback share over 20%]}\n"
)


def served(
    e: Evaluation, number: int, *, fallbacks: int = 0, slow: int = 0, of: int = 200, **changed: Any
) -> list[Record]:
    """A window of predictions, some of them by the fallback and some slow, and the alerts when it is judged first."""
    e.predict(
        *(
            e.lab.prediction(
                prediction_id=f"{number}/{at}",
                event_time=number * END + at,
                served_by="rule" if at < fallbacks else "model",
                served_cause="model" if at < fallbacks else None,
                latency_ms=51.0 if at >= of - slow else 50.0,
                **changed,
            )
            for at in range(of)
        )
    )
    return e.judge(number * END, 0)[1]


def test_a_fallback_share_is_told_when_it_is_more_than_the_contract_bears_and_no_chance() -> None:
    e = Evaluation(EvaluatedLane(LEVELS))
    # P(10 or more of 200 at 2 %) is 0.0075, of 9 it is 0.020.
    assert served(e, 0, fallbacks=9) == []
    (raised,) = served(e, 1, fallbacks=10)
    assert (raised["kind"], raised["state"], raised["severity"]) == ("fallback-share", "raised", "warning")
    assert (raised["version"], raised["service"], raised["at"]) == (1, "evaluator", 2 * END)
    facts = ("found", "predictions", "level", "window_start")
    assert [raised["detail"][name] for name in facts] == ["10", "200", "0.02", str(END)]
    assert served(e, 2, fallbacks=10) == []  # it lasts, and the silence is not over
    (again,) = served(e, 3, fallbacks=10)
    assert served(e, 4, fallbacks=9) == []  # more than the level, and may be by chance
    (resolved,) = served(e, 5, fallbacks=4)
    assert {raised["alert_id"]} == {again["alert_id"], resolved["alert_id"]}
    assert resolved["state"] == "resolved"
    (other,) = served(e, 6, fallbacks=60)
    assert (other["severity"], other["detail"]["level"]) == ("severe", "0.2")
    assert other["alert_id"] != raised["alert_id"]
    assert e.judge(6 * END, 1)[1] == []  # once, and not at each age


def test_a_severity_that_changes_is_told_at_once() -> None:
    e = Evaluation(EvaluatedLane(LEVELS))
    severities = [
        served(e, at, fallbacks=fallbacks)[0]["severity"] for at, fallbacks in enumerate((20, 80, 20))
    ]
    assert severities == ["warning", "severe", "warning"]


def test_what_the_model_is_to_answer_bounds_the_fallback_too() -> None:
    e = Evaluation(EvaluatedLane(BINARY + "service_levels: {answered: 90%}\n"))
    assert served(e, 0, fallbacks=28) == []  # P(28 or more of 200 at 10 %) is 0.043
    (raised,) = served(e, 1, fallbacks=33)
    assert raised["severity"] == "warning"


def test_a_latency_level_that_is_missed_is_told() -> None:
    e = Evaluation(EvaluatedLane(LEVELS))
    assert served(e, 0, slow=6) == []  # P(6 or more of 200 at 1 %) is 0.016, of 7 it is 0.0043
    (raised,) = served(e, 1, slow=7)
    assert (raised["kind"], raised["severity"]) == ("latency-level", "warning")
    assert "longer than 50ms for 7 of 200" in raised["summary"]
    (resolved,) = served(e, 2, slow=2)
    assert (resolved["state"], resolved["alert_id"]) == ("resolved", raised["alert_id"])


def test_levels_are_of_the_champion_and_end_with_it() -> None:
    e = Evaluation(EvaluatedLane(LEVELS))
    assert served(e, 0, fallbacks=100, role="canary") == []
    (raised,) = served(e, 1, fallbacks=20)
    (resolved,) = served(e, 2, version=2)
    assert (resolved["alert_id"], resolved["version"]) == (raised["alert_id"], 1)
    assert "answers no more" in resolved["summary"]
    # What the champion answers as an arm of an experiment counts with what it answers as champion.
    e.predict(*(e.lab.prediction(prediction_id=f"b/{at}", event_time=4 * END, version=2) for at in range(20)))
    both = served(e, 4, fallbacks=11, role="arm", arm="a", version=2)
    assert [(a["kind"], a["detail"]["predictions"]) for a in both] == [("fallback-share", "220")]
    assert served(e, 4, fallbacks=200, role="arm", arm="b", version=3) == []
    silent = Evaluation(EvaluatedLane(BINARY))
    assert served(silent, 0, fallbacks=200, slow=200) == []
