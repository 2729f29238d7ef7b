"""Drift from prediction records to reports: what is read, counted, judged, told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from tests.support.drifting import CONTRACT, DAY, FEATURES, NOW, DriftWorld, draw, expected_tests

from tailrace.contracts.records.lanes import ALERTS, DRIFT_REPORTS
from tailrace.drift.counts import DriftCounts
from tailrace.drift.windows import DriftWindows
from tailrace.errors import BadRecord
from tailrace.streaming.records import PlainMessage
from tailrace.windows.kinds import NO_TIME, Cell, Closed

TOPIC, SHADOW = "credit.predictions", "credit.shadow-predictions"
TRAINED = draw(400, np.random.default_rng(0))


def world(text: str = CONTRACT, trained: Sequence[Mapping[str, Any]] = TRAINED) -> DriftWorld:
    made = DriftWorld(text)
    made.publish(1, trained)
    return made


def messages(
    values: Sequence[bytes | None], topic: str = TOPIC, appended: int = NOW + 400 * DAY
) -> list[Any]:
    return [PlainMessage(topic, 0, at, value, b"l", timestamp_ms=appended) for at, value in enumerate(values)]


def cells(
    windows: DriftWindows, values: Sequence[bytes | None], topic: str = TOPIC, before: Any = None
) -> tuple[list[Cell], Mapping[int, BadRecord]]:
    rows = windows.read(topic, messages(values, topic))
    before = np.full(len(values), NO_TIME) if before is None else np.array(before)
    return [cell for _, cell in windows.count(topic, rows, before)], rows.bad


def closed(windows: DriftWindows, counted: Sequence[Cell], start: int) -> Closed:
    subjects: dict[str, Any] = {}
    for cell in sorted(counted, key=lambda c: c.subject):
        if cell.window_start == start:
            subjects[cell.subject] = windows.add(subjects.get(cell.subject), cell.counts)
    applied = windows.contracts().by_digest[counted[0].contract_digest]
    return Closed("credit", counted[0].stream, applied, start, 0, subjects)


def judged(
    of: DriftWorld,
    rows: Sequence[Mapping[str, Any]],
    memory: dict[str, Any] | None = None,
    day: int = 0,
    **changed: Any,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Reports by segment, alerts and memory of a window of these rows."""
    windows = of.windows()
    topic = changed.pop("topic", TOPIC)
    start = NOW + day * DAY
    values = [of.value(row, start + at % DAY, **changed) for at, row in enumerate(rows)]
    counted, bad = cells(windows, values, topic)
    assert not bad
    result = windows.judge(closed(windows, counted, start), memory or {})
    reports = [of.control.decode("DriftReport", r.value) for r in result.records if r.topic == DRIFT_REPORTS]
    alerts = [of.control.decode("Alert", r.value) for r in result.records if r.topic == ALERTS]
    assert all(r.key == b"credit" for r in result.records)
    return {report["segment"]: report for report in reports}, alerts, result.memory


def check_tests(of: DriftWorld, report: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    expected = expected_tests(of.contract, rows, of.training[report["version"]])
    assert [(t["feature"], t["test"]) for t in report["tests"]] == [
        (t["feature"], t["test"]) for t in expected
    ]
    for test, wanted in zip(report["tests"], expected, strict=True):
        for name in ("statistic", "p_value", "q_value", "effect"):
            assert test[name] == (None if wanted[name] is None else pytest.approx(wanted[name], abs=1e-9)), (
                test,
                wanted,
            )
        assert test["drifted"] == wanted["drifted"]


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_a_report_says_what_scipy_says_of_the_raw_values(shift: float) -> None:
    of, rows = world(), draw(300, np.random.default_rng(5), shift=shift, missing=0.1)
    reports, alerts, _ = judged(of, rows)
    assert set(reports) == {"", "region=north", "region=south"}
    for segment, report in reports.items():
        own = [row for row in rows if segment in ("", f"region={row['region']}")]
        assert report["rows"] == len(own)
        assert report["verdict"] == ("drift" if shift else "quiet")
        check_tests(of, report, own)
    assert {alert["detail"]["segment"] for alert in alerts} == (set(reports) if shift else set())


def test_a_histogram_counts_every_value() -> None:
    of, rows = world(), draw(300, np.random.default_rng(5), missing=0.1)
    for test in judged(of, rows)[0][""]["tests"]:
        if test["test"] in ("ks", "chi2"):
            assert sum(b["count"] for b in test["histogram"]) == test["n"]
            assert sum(b["reference"] for b in test["histogram"]) == pytest.approx(1)
    income = next(
        t for t in judged(of, rows)[0][""]["tests"] if t["feature"] == "income" and t["test"] == "ks"
    )
    bounds = [float(b["label"]) for b in income["histogram"]]
    values = [row["income"] for row in rows if row["income"] is not None]
    edges = [-np.inf, *bounds]
    assert [b["count"] for b in income["histogram"]] == [
        sum(low < value <= high for value in values) for low, high in zip(edges, bounds, strict=False)
    ]


def test_counting_in_pieces_is_counting_at_once() -> None:
    of, rows = world(), draw(200, np.random.default_rng(3))
    windows = of.windows()
    values = [of.value(row, NOW + at) for at, row in enumerate(rows)]
    at_once, _ = cells(windows, values)
    pieces = [cell for first in range(0, 200, 7) for cell in cells(windows, values[first : first + 7])[0]]
    whole, merged = closed(windows, at_once, NOW).subjects, closed(windows, pieces[::-1], NOW).subjects
    assert whole.keys() == merged.keys()
    for subject, counts in whole.items():
        packed = windows.pack(counts)
        assert packed == windows.pack(merged[subject])
        assert windows.pack(windows.add(None, packed)) == packed


def test_reports_are_the_same_bytes_however_they_came_about() -> None:
    of, rows = world(), draw(200, np.random.default_rng(3), shift=1.0)
    outcomes = []
    for order in (1, -1):
        windows = of.windows()
        values = [of.value(row, NOW + 5) for row in rows[::order]]
        outcomes.append(windows.judge(closed(windows, cells(windows, values)[0], NOW), {}))
    assert outcomes[0] == outcomes[1]


def test_who_judges_finds_the_reference_that_who_counted_had() -> None:
    of, rows = world(), draw(100, np.random.default_rng(3))
    windows = of.windows()
    counted, _ = cells(windows, [of.value(row, NOW) for row in rows])
    another = of.windows()
    subjects = closed(windows, counted, NOW)
    assert another.judge(subjects, {}) == windows.judge(subjects, {})


# What comes in ---


def test_a_row_behind_its_partitions_clock_is_a_number_in_the_window_of_the_clock() -> None:
    of, row = world(), TRAINED[0]
    hour = DAY // 24
    windows = of.windows()
    values = [of.value({**row, "region": "north"}, NOW - 1) for _ in range(3)]
    own_cells, _ = cells(windows, values, before=[NOW - 5, NOW + hour - 1, NOW + hour])
    counted = [(cell.window_start - NOW, DriftCounts.from_bytes(cell.counts)) for cell in own_cells]
    in_all, in_region = [(-DAY, 2, 0), (0, 0, 1)], [(-DAY, 2, 0), (0, 0, 1)]
    assert [(start, counts.rows, counts.late) for start, counts in counted] == in_all + in_region
    assert all(counts.slots.sum() == counts.rows * 6 for _, counts in counted)
    reports = windows.judge(closed(windows, own_cells, NOW), {}).records
    report = of.control.decode("DriftReport", reports[0].value)
    assert (report["rows"], report["late"], report["verdict"]) == (0, 1, "too-few-rows")


def test_three_rows_are_too_few_but_are_reported() -> None:
    of = world()
    rows = draw(3, np.random.default_rng(1), shift=2.4, missing=0)
    reports, alerts, _ = judged(of, rows)
    assert reports[""]["verdict"] == "too-few-rows"
    assert reports[""]["rows"] == 3
    check_tests(of, reports[""], rows)
    assert not any(test["drifted"] for test in reports[""]["tests"])
    assert alerts == []


@pytest.mark.parametrize(("rows", "verdict"), [(19, "too-few-rows"), (20, "quiet"), (21, "quiet")])
def test_as_many_rows_as_the_contract_asks_for_are_enough(rows: int, verdict: str) -> None:
    assert judged(world(), draw(rows, np.random.default_rng(5)))[0][""]["verdict"] == verdict


@pytest.mark.parametrize(
    ("feature", "usual", "other"), [("purpose", "car", "home"), ("employed", True, False)]
)
def test_what_the_contract_allows_and_training_never_saw_is_told_when_it_comes(
    feature: str, usual: Any, other: Any
) -> None:
    trained = [row | {feature: usual} for row in TRAINED]
    of = world(CONTRACT.replace("unseen: other, missing: pass", "unseen: reject, missing: pass"), trained)
    rows = [row | {feature: usual} for row in draw(300, np.random.default_rng(5))]
    quiet, _, _ = judged(of, rows)
    rows[::3] = [row | {feature: other} for row in rows[::3]]
    changed, _, _ = judged(of, rows)
    for report, drifted in ((quiet[""], False), (changed[""], True)):
        (test,) = [t for t in report["tests"] if (t["feature"], t["test"]) == (feature, "unseen")]
        assert (test["drifted"], test["histogram"][0]["count"]) == (drifted, 100 if drifted else 0)


def test_a_constant_feature_is_quiet_and_a_change_of_it_is_found() -> None:
    trained = [{**row, "income": 7.0, "purpose": "car"} for row in TRAINED]
    of = world(trained=trained)
    same = [{**row, "income": 7.0, "purpose": "car"} for row in draw(100, np.random.default_rng(1))]
    reports, _, _ = judged(of, same)
    assert reports[""]["verdict"] == "quiet"
    by_name = {(t["feature"], t["test"]): t for t in reports[""]["tests"]}
    assert (by_name["income", "ks"]["statistic"], by_name["income", "ks"]["p_value"]) == (0.0, 1.0)
    assert by_name["purpose", "chi2"]["p_value"] is None
    reports, _, _ = judged(of, [{**row, "income": 7.5, "purpose": "home"} for row in same])
    drifted = {(t["feature"], t["test"]) for t in reports[""]["tests"] if t["drifted"]}
    assert drifted == {("income", "ks"), ("purpose", "unseen")}


def test_a_feature_that_is_missing_everywhere_drifts_by_its_share_alone() -> None:
    of = world()
    rows = [{**row, "income": None, "purpose": None} for row in draw(100, np.random.default_rng(1))]
    reports, _, _ = judged(of, rows)
    check_tests(of, reports[""], rows)
    drifted = {(t["feature"], t["test"]) for t in reports[""]["tests"] if t["drifted"]}
    assert {("income", "missing"), ("purpose", "missing")} <= drifted
    assert not drifted & {("income", "ks"), ("purpose", "chi2")}


def test_a_feature_that_training_never_had_has_no_distribution_to_compare_with() -> None:
    trained = [{**row, "age": None} for row in TRAINED]
    of, rows = world(trained=trained), draw(100, np.random.default_rng(1), missing=0)
    reports, _, _ = judged(of, rows)
    check_tests(of, reports[""], rows)
    by_name = {(t["feature"], t["test"]): t for t in reports[""]["tests"]}
    assert by_name["age", "ks"]["p_value"] is None
    assert by_name["age", "missing"]["drifted"]


def test_categories_that_training_never_saw_are_a_share_of_their_own() -> None:
    of = world()
    rows = draw(100, np.random.default_rng(1), missing=0)
    for row in rows[:30]:
        row["purpose"] = "boat"
    reports, _, _ = judged(of, rows)
    check_tests(of, reports[""], rows)
    unseen = next(t for t in reports[""]["tests"] if t["test"] == "unseen")
    assert (unseen["statistic"], unseen["drifted"], unseen["n"]) == (0.3, True, 100)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_or_infinite_have_their_places(value: float) -> None:
    of = world()
    rows = draw(100, np.random.default_rng(1), missing=0)
    for row in rows[:40]:
        row["income"] = value
    as_scipy_takes_it = [{**r, "income": None if r["income"] != r["income"] else r["income"]} for r in rows]
    reports, _, _ = judged(of, rows)
    check_tests(of, reports[""], as_scipy_takes_it)
    assert reports[""]["verdict"] == "drift"


def test_without_a_package_there_are_rows_and_no_tests() -> None:
    of = DriftWorld()
    reports, alerts, _ = judged(of, draw(100, np.random.default_rng(1)))
    assert (reports[""]["verdict"], reports[""]["rows"], reports[""]["tests"]) == ("no-reference", 100, [])
    assert alerts == []
    of.publish(1, TRAINED, why_not="not signed by anybody who is trusted")
    assert judged(of, draw(100, np.random.default_rng(1)))[0][""]["verdict"] == "no-reference"
    reports, _, _ = judged(world(), draw(100, np.random.default_rng(1)), artifact_digest="another")
    assert reports[""]["verdict"] == "no-reference"


def test_what_others_answered_in_a_models_place_says_nothing_about_the_model() -> None:
    of = world()
    rows = [{**row, "score": 0.9, "predicted_class": "true"} for row in draw(100, np.random.default_rng(1))]
    reports, _, _ = judged(of, rows, served_by="rule")
    tests = {(t["feature"], t["test"]): t for t in reports[""]["tests"]}
    assert tests["score", "ks"]["n"] == tests["predicted_class", "chi2"]["n"] == 0
    assert reports[""]["verdict"] == "quiet"


def test_bad_records_are_refused_one_by_one() -> None:
    of, row = world(), TRAINED[0]
    good = of.value(row, NOW)
    far = 4_102_444_800_000  # the year 2100
    values = [
        good, b"{}", None, good[:-3], good + b"x", b"\x00\x00\x00\xff\xff" + good[5:],
        of.value(row, NOW, contract_digest="unknown"), of.value(row, far), of.value(row, NOW, model="other"), good,
    ]  # fmt: skip
    counted, bad = cells(of.windows(), values)
    assert {at: error.code for at, error in bad.items()} == {
        1: "wrong-magic",
        2: "empty",
        3: "truncated",
        4: "trailing-bytes",
        5: "unknown-schema",
        6: "unknown-contract",
        7: "event-time-ahead",
        8: "unknown-contract",
    }
    assert sum(DriftCounts.from_bytes(c.counts).rows for c in counted if '"segment":""' in c.subject) == 2


def test_rows_that_take_the_plain_way_count_as_well() -> None:
    of, row = world(), TRAINED[0]
    value = of.value(row, NOW, replaced=[{"field": "income", "value": "1", "reason": "missing"}])
    lead = of.codec.encode(of.schema_id, of.event(row, NOW)).index(b"\x02p")
    overlong = value[:lead] + b"\x82\x00p" + value[lead + 2 :]  # a length that takes a byte too many
    counted, bad = cells(of.windows(), [overlong, value])
    assert not bad
    assert sum(DriftCounts.from_bytes(c.counts).rows for c in counted if '"segment":""' in c.subject) == 2


def test_each_prediction_is_counted_by_the_contract_that_it_was_made_under() -> None:
    of, row = world(), TRAINED[0]
    first = of.value(row, NOW + DAY // 2)
    of.apply(CONTRACT.replace("window: 1d", "window: 6h").replace(", by: [region]", ""))
    second = of.value(row, NOW + DAY // 2 + 1)
    counted, _ = cells(of.windows(), [first, second])
    assert {(c.contract_digest, c.window_start) for c in counted} == {
        (of.contracts[0].digest, NOW),
        (of.contracts[1].digest, NOW + DAY // 2),
    }


# Alerts ---


def test_an_alert_is_raised_lasts_and_is_resolved() -> None:
    text = CONTRACT + "alerts: {severe: [drift on purpose], silence: 3d}\n"
    of = world(text.replace(", by: [region]", ""))
    rng = np.random.default_rng(9)
    sent, memory = [], {}
    for day, shift in enumerate([0, 1.2, 1.2, 1.2, 1.2, 0, 0, 1.2]):
        _, alerts, memory = judged(of, draw(200, rng, shift=shift), memory, day)
        sent.append([(a["state"], (a["at"] - NOW) // DAY) for a in alerts])
        if day == 1:
            raised = alerts[0]
        if day == 5:
            resolved = alerts[0]
        if day == 7:
            again = alerts[0]
    assert sent == [[], [("raised", 2)], [], [], [("raised", 2)], [("resolved", 6)], [], [("raised", 8)]]
    assert raised["alert_id"] == resolved["alert_id"] != again["alert_id"]
    assert raised["kind"] == "drift"
    assert (raised["model"], raised["version"]) == ("credit", 1)
    assert "income" in raised["detail"]["features"].split(",")
    assert raised["detail"]["since"] == resolved["detail"]["since"] == str(NOW + DAY)
    assert raised["severity"] == "severe"


def test_a_change_of_severity_is_told_at_once() -> None:
    of = world(CONTRACT.replace(", by: [region]", "") + "alerts: {severe: [drift on age], silence: 90d}\n")
    rows = draw(200, np.random.default_rng(9), shift=1.2)
    _, first, memory = judged(of, rows, {}, 0)
    _, second, _ = judged(of, [{**row, "age": 99} for row in rows], memory, 1)
    assert [a["severity"] for a in first + second] == ["warning", "severe"]
    assert first[0]["alert_id"] == second[0]["alert_id"]


def test_an_alert_ends_with_the_version_that_it_is_about() -> None:
    of = world(CONTRACT.replace(", by: [region]", ""))
    of.publish(2, draw(400, np.random.default_rng(2), shift=1.2))
    rng = np.random.default_rng(9)
    _, alerts, memory = judged(of, draw(200, rng, shift=1.2), {}, 0)
    assert [a["state"] for a in alerts] == ["raised"]
    _, alerts, memory = judged(of, draw(5, rng, shift=1.2), memory, 1)  # too few to say anything
    assert (alerts, len(memory["open"])) == ([], 1)
    _, alerts, memory = judged(of, draw(200, rng, shift=1.2), memory, 2, version=2)
    assert [(a["state"], a["version"]) for a in alerts] == [("resolved", 1)]
    assert memory == {}


def test_a_segment_that_is_judged_no_more_keeps_no_alert() -> None:
    of = world()
    rows = draw(300, np.random.default_rng(9), shift=1.2)
    _, alerts, memory = judged(of, rows, {}, 0)
    assert len(alerts) == 3
    of.apply(CONTRACT.replace(", by: [region]", ""))
    _, alerts, memory = judged(of, rows, memory, 1)
    assert sorted(a["detail"]["segment"] for a in alerts if a["state"] == "resolved") == [
        "region=north",
        "region=south",
    ]
    assert list(memory["open"]) == ["1/"]


@pytest.mark.parametrize(("topic", "role"), [(SHADOW, "shadow"), (TOPIC, "canary")])
def test_only_champions_raise_alerts(topic: str, role: str) -> None:
    rows = draw(300, np.random.default_rng(9), shift=1.2)
    reports, alerts, memory = judged(world(), rows, role=role, topic=topic)
    assert {(r["verdict"], r["role"]) for r in reports.values()} == {("drift", role)}
    assert (alerts, memory) == ([], {})


def test_what_the_champion_answers_as_an_arm_it_answers_as_champion() -> None:
    rows = draw(300, np.random.default_rng(9), shift=1.2)
    reports, alerts, memory = judged(world(), rows, role="arm", arm="a")
    assert {(r["verdict"], r["role"]) for r in reports.values()} == {("drift", "champion")}
    assert {(a["state"], a["version"]) for a in alerts} == {("raised", 1)}
    # It is the same alert when the experiment is over.
    _, again, _ = judged(world(), rows, memory, 1)
    assert [a["alert_id"] for a in again] == [a["alert_id"] for a in alerts]
    assert judged(world(), rows, role="arm", arm="b")[1:] == ([], {})


def test_only_inputs_of_the_model_are_tested() -> None:
    reports, _, _ = judged(world(), draw(50, np.random.default_rng(1)))
    assert list(dict.fromkeys(t["feature"] for t in reports[""]["tests"])) == [
        *FEATURES,
        "score",
        "predicted_class",
    ]
