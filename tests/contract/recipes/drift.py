"""The drift test of CONTRIBUTING.md is everywhere: run in a copy of the tree to which its two files alone came."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import fastavro
import numpy as np
import pytest

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.record_types import DriftReportRecord
from tailrace.drift.alerts import drift_alerts
from tailrace.drift.count import DriftSubject
from tailrace.drift.counts import DriftCounts
from tailrace.drift.judge import DriftWindow, judge
from tailrace.drift.layout import SlotLayout
from tailrace.models.reference import CategoryProfile, Reference
from tailrace.package_data import data_dir
from tailrace.statistics.page import page

NAME = "total_variation"
TEXT = f"""
model: credit
owner: {{team: risk}}
features: {{purpose: {{categories: [car, home]}}}}
target: {{name: defaulted, type: boolean}}
drift: {{min_rows: 50, tests: [{NAME}, chi2], min_effect: {{{NAME}: FLOOR}}}}
"""
SCHEMA = json.loads((data_dir("schemas", "avro") / "drift_report.avsc").read_text())
CATEGORIES = CategoryProfile(counts={"car": 600, "home": 400}, present=1000, missing=0)
LAYOUT = SlotLayout.of(
    Reference(
        rows=1000, features={"purpose": CATEGORIES}, output_rows=0, score=None, predicted_class=CATEGORIES
    ),
    ["purpose"],
)


def window_of(floor: float) -> DriftWindow:
    contract = load_contract(TEXT.replace("FLOOR", str(floor)))
    return DriftWindow("credit", SimpleNamespace(contract=contract, digest="d"), 0)


def report_of(window: DriftWindow) -> DriftReportRecord:
    """Of 100 rows, of which one in ten is a car; by field what is missing, what was never seen, cars and homes."""
    counts = DriftCounts(100, 0, np.array([0, 0, 10, 90, 100, 0, 0, 0]))
    return judge(window, DriftSubject(1, "a" * 64, "champion", ""), counts, LAYOUT)


report = report_of(window_of(0.4))
tests = {(test["feature"], test["test"]): test for test in report["tests"]}
assert set(tests) == {(name, test) for name in ("purpose", "predicted_class") for test in ("chi2", NAME)}
said = tests["purpose", NAME]
assert said["effect"] == pytest.approx(0.5)
assert (said["p_value"], said["q_value"], said["drifted"]) == (None, None, True)
assert (said["n"], said["reference_n"], len(said["histogram"])) == (100, 1000, 2)
assert tests["predicted_class", NAME]["effect"] is None
assert tests["purpose", "chi2"]["p_value"] < 1e-9
fastavro.schemaless_writer(io.BytesIO(), fastavro.parse_schema(SCHEMA), report)
assert [alert["kind"] for alert in drift_alerts(window_of(0.4), [report], {}).records] == ["drift"]

below = {(test["feature"], test["test"]): test for test in report_of(window_of(0.6))["tests"]}
assert not below["purpose", NAME]["drifted"]
assert load_contract(TEXT.replace(f", min_effect: {{{NAME}: FLOOR}}", "")).drift.min_effect.of(NAME) == 0.1

editors = json.loads((data_dir("contracts") / "model-contract.schema.json").read_text())["$defs"]
assert NAME in editors["Drift"]["properties"]["tests"]["items"]["enum"]
assert editors["MinEffect"]["properties"][NAME]["default"] == 0.1
assert f"| `{NAME}` | category |" in page()
