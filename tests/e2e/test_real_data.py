"""Real data through the loop: reports against a computation from the CSV alone, and drift that was made by hand."""

from __future__ import annotations

import csv
import datetime
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk
from tests.support.project import Project
from tests.support.real_data import real_data
from tests.support.waiting import until

REPO = Path(__file__).parents[2]
ROWS = 4_000
FEATURES = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
EVERY = datetime.timedelta(minutes=30)
START = datetime.datetime(1996, 5, 7, tzinfo=datetime.UTC)
WEEK_MS = 7 * 86_400_000


def _electricity(file: Path) -> list[dict[str, str]]:
    """The first rows of the real file, or where that is missing rows like them; written to ``file``."""
    if (real := real_data("electricity.csv")) is not None:
        file.write_text("\n".join(real.read_text().splitlines()[: ROWS + 1]) + "\n")
    else:
        draw = random.Random(1)
        with file.open("w", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow([*FEATURES, "class"])
            for row in range(ROWS):
                values = [min(1.0, abs(draw.gauss(0.4, 0.15))) for _ in range(5)]
                up = int(values[0] + 0.3 * values[1] + draw.gauss(0, 0.1) > 0.5)
                writer.writerow([row % 48 / 47, *(round(v, 6) for v in values), up])
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _apply(project: Project, name: str, called: str) -> None:
    """Applies an example contract under another name, so that tests do not meet in one lane."""
    for kind in ("models", "data"):
        text = (REPO / "contracts" / kind / f"{name}.yaml").read_text()
        file = project.path / "contracts" / kind / f"{called}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace(f"model: {name}\n", f"model: {called}\n"))
    project.run("apply", str(project.path / "contracts" / "models" / f"{called}.yaml"))


def _query_until(project: Project, sql: str, enough: int) -> list[dict[str, Any]]:
    """The rows of a query, once there are so many."""

    def rows() -> list[dict[str, Any]] | None:
        so_far = project.json("query", sql)
        return so_far if len(so_far) >= enough else None

    return list(until(rows, lambda: f"{enough} rows:\n{sql}\n{project.logs()}"))


def test_metrics_in_clickhouse_are_scikit_learns_on_the_csv(project: Project) -> None:
    rows = _electricity(project.path / "power.csv")
    _apply(project, "electricity", "power")
    project.run("train", "power", "--data", "power.csv")
    project.wait_for_champion("power", 1)
    project.json("replay", "power.csv", "--model", "power", "--label-delay", "1d")

    start = int(START.timestamp() * 1000)
    times = [start + int(row * EVERY / datetime.timedelta(milliseconds=1)) for row in range(ROWS)]
    truth = np.array([row["class"] == "1" for row in rows])
    first, last = times[0] // WEEK_MS + 1, (times[-1] - 86_400_000) // WEEK_MS  # whole windows, labels all in
    reports = _query_until(
        project,
        "SELECT toUnixTimestamp64Milli(window_start) AS start, labelled, predictions, late_labels, mature, "
        "toJSONString(metrics) AS metrics FROM performance_reports "
        "WHERE model = 'power' AND role = 'champion' AND version = 1 AND segment = '' AND against IS NULL "
        f"AND age = 86400000 AND window_start >= fromUnixTimestamp64Milli({first * WEEK_MS}) ORDER BY window_start",
        last - first,
    )
    answers = _query_until(
        project, "SELECT request_id, score, predicted_class FROM power_predictions ORDER BY request_id", ROWS
    )
    score = np.array([row["score"] for row in answers])
    predicted = np.array([row["predicted_class"] == "true" for row in answers])
    window = np.array(times) // WEEK_MS
    compared = 0
    for report in reports:
        mine = window == report["start"] // WEEK_MS
        assert report["predictions"] == report["labelled"] == mine.sum()
        assert report["mature"]
        expected = {
            "accuracy": sk.accuracy_score(truth[mine], predicted[mine]),
            "balanced_accuracy": sk.balanced_accuracy_score(truth[mine], predicted[mine]),
            "f1": sk.f1_score(truth[mine], predicted[mine], zero_division=0),
            "auc": sk.roc_auc_score(truth[mine], score[mine]),
            "log_loss": sk.log_loss(truth[mine], score[mine]),
            "brier": sk.brier_score_loss(truth[mine], score[mine]),
        }
        metrics = {m["metric"]: m["value"] for m in json.loads(report["metrics"])}
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            assert metrics[name] == pytest.approx(value, abs=1e-9), (name, report)
            compared += 1
    assert compared >= 6 * (last - first) > 30


def test_wines_that_are_lighter_than_those_trained_on_are_drift_on_alcohol(project: Project) -> None:
    """The example of "Introducing MLOps" (Treveil et al., 2020), chapter 7."""
    if (real := real_data("wine_quality.csv")) is not None:
        lines = real.read_text().splitlines()
    else:
        draw = random.Random(1)
        names = (
            "type fixed_acidity volatile_acidity citric_acid residual_sugar chlorides free_sulfur_dioxide "
        )
        names += "total_sulfur_dioxide density pH sulphates alcohol quality"
        lines = [",".join(names.split())]
        for _ in range(5_000):
            alcohol = draw.uniform(8, 14)
            values = [draw.uniform(0.2, 0.9) for _ in range(5)]
            quality = 6 + (alcohol + draw.gauss(0, 1) > 12)
            lines.append(f"white,{','.join(map(str, values))},20,80,0.99,3.2,0.5,{alcohol},{quality}")
    (project.path / "cellar.csv").write_text("\n".join(lines) + "\n")
    _apply(project, "wine", "cellar")
    project.run("train", "cellar", "--data", "cellar.csv", "--where", "alcohol >= 11")
    project.wait_for_champion("cellar", 1)
    report = project.json("replay", "cellar.csv", "--model", "cellar", "--where", "alcohol < 11")
    assert report["trained_on"] == 0
    alerts = _query_until(
        project, "SELECT summary, detail FROM alerts WHERE model = 'cellar' AND kind = 'drift'", 1
    )
    assert any("alcohol" in alert["summary"] for alert in alerts)
    assert any("alcohol" in str(alert["detail"]) for alert in alerts)
    tests = _query_until(
        project,
        "SELECT test.effect AS effect, test.p_value AS p FROM drift_reports ARRAY JOIN tests AS test "
        "WHERE model = 'cellar' AND segment = '' AND test.feature = 'alcohol' AND test.drifted",
        1,
    )
    assert all(
        row["effect"] == 1 and row["p"] < 1e-9 for row in tests
    )  # no wine in the window was trained on
