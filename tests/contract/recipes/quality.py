"""The metric of CONTRIBUTING.md is everywhere: run in a copy of the tree to which nothing but its entry was added."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import fastavro
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_percentage_error

from tailrace.contracts.language.load import load_contract
from tailrace.evaluator.report import JudgedWindow, reports
from tailrace.models.manifest import Holdout
from tailrace.models.predictions import Predictions
from tailrace.package_data import data_dir
from tailrace.statistics.metrics import METRIC
from tailrace.statistics.page import page
from tailrace.testing.evaluated_lane import REGRESSION, EvaluatedLane
from tailrace.trainer.evaluate import evaluations

NAME = "mape"
ASKS = """
gates: {beat_champion: {metric: mape}, ratchet: {metric: mape, tolerance: 0.1}}
alerts: {severe: ["quality drop of mape"]}
"""
TEXT = REGRESSION.replace("judge_at:", f"metrics: [{NAME}], drop: {{{NAME}: 0.01}}, judge_at:") + ASKS

contract = load_contract(TEXT)
assert contract.quality.metrics == [NAME]
assert f'"{NAME}"' in (data_dir("contracts") / "model-contract.schema.json").read_text()
assert f"| `{NAME}` |" in page()
assert METRIC[NAME].better_by(0.1, 0.3) == pytest.approx(0.2)

rng = np.random.default_rng(1)
truth, mine, theirs = rng.uniform(1, 2, 200), rng.uniform(1, 2, 200), rng.uniform(1, 2, 200)
wanted = mean_absolute_percentage_error(truth, mine)

trained = {
    e["metric"]: e for e in evaluations("candidate", Predictions(None, None, mine, ()), truth, contract)
}
assert trained[NAME]["value"] == pytest.approx(wanted)
assert trained[NAME]["low"] < wanted < trained[NAME]["high"]

lab = EvaluatedLane(TEXT)
outcomes = [
    lab.outcome(
        lab.prediction(value=one, version=2, role="shadow"), label=label, champion=lab.champion(value=other)
    )
    for one, other, label in zip(mine.tolist(), theirs.tolist(), truth.tolist(), strict=True)
]
counted = {about: counts for (_, _, about), counts in lab.counted(lab.lane.outcomes, outcomes).items()}
package = SimpleNamespace(holdout=Holdout(rows=100, metrics={NAME: 0.1}), conformal=None)
window = JudgedWindow("price", SimpleNamespace(contract=contract, digest="d"), 0, 0)
own, pair = sorted(reports(window, counted, lambda *_: package), key=lambda report: report["against"] or 0)
first = own["metrics"][0]
assert first["metric"] == NAME
assert first["value"] == pytest.approx(wanted)
assert first["low"] < wanted < first["high"]
assert first["drop"] == pytest.approx(wanted - 0.1)
assert 0 <= first["p_value"] < 0.01
compared = {gain["metric"]: gain for gain in pair["paired"]}[NAME]
assert compared["gain"] == pytest.approx(mean_absolute_percentage_error(truth, theirs) - wanted)
assert compared["sum"] is not None
schema = json.loads((data_dir("schemas", "avro") / "performance_report.avsc").read_text())
for report in (own, pair):
    fastavro.schemaless_writer(io.BytesIO(), fastavro.parse_schema(schema), report)
