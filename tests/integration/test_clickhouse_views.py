"""How good a model is stands in one plain SELECT, and `tailrace query` prints it in four formats."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.clickhouse_server import LOGINS, start

from tailrace.access.credentials import HTTP, OPS, Credentials
from tailrace.clickhouse.client import ClickHouse
from tailrace.clickhouse.migrations import migrate
from tailrace.clickhouse.views import ensure_views
from tailrace.local.ports import HOST, free_port

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
METRIC = dict.fromkeys(("low", "high", "error", "holdout", "drop", "p_value"))


def report(day: int, hours: int, metrics: dict[str, float | None], **more: Any) -> dict[str, Any]:
    """Of the window of a day, at an age of so many hours."""
    row = {
        "model": "shop-eu",
        "version": 1,
        "role": "champion",
        "segment": "",
        "against": None,
        "window_start": day * DAY_MS,
        "window_end": (day + 1) * DAY_MS,
        "age": hours * HOUR_MS,
        "labelled": 90,
        "mature": True,
        "verdict": "good",
        "metrics": [
            METRIC | {"metric": name, "value": value, "n": 90, "interval": "wilson"}
            for name, value in metrics.items()
        ],
    }
    return row | more


REPORTS = [
    report(1, 1, {"accuracy": 0.7}),
    report(1, 24, {"accuracy": 0.8, "auc": None}),
    report(1, 24, {"accuracy": 0.81, "auc": 0.9}),  # again: labels were corrected
    report(2, 1, {"accuracy": 0.6}),
    report(2, 1, {"accuracy": 0.5}, segment="region=north"),
    report(2, 1, {"accuracy": 0.4}, version=2, role="shadow", mature=False),
    report(2, 1, {"accuracy": 0.1}, version=2, role="shadow", against=1),  # a pair is no row of its own
    report(3, 1, {"accuracy": 0.2}, mature=False),
    report(2, 1, {"accuracy": 0.3}, model="shop"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As ops, who only reads."""
    home, port = tmp_path_factory.mktemp("views"), free_port()
    process = start(home, port)
    clickhouse = ClickHouse(f"http://{HOST}:{port}", auth=LOGINS[port])
    migrate(clickhouse)
    rows = [
        {"_topic": "tailrace.performance-reports", "_partition": 0, "_offset": n} | row
        for n, row in enumerate(REPORTS)
    ]
    types = clickhouse.columns("performance_reports")
    for row in rows:
        values = {name: [_typed(value)] for name, value in row.items()}
        clickhouse.insert("performance_reports", values, types, str(row["_offset"]))
    assert len(ensure_views(clickhouse, "shop-eu")) == 2
    assert ensure_views(clickhouse, "shop-eu") == []
    clickhouse.close()
    yield f"http://ops:{Credentials(home).make(HTTP, OPS)}@{HOST}:{port}/tailrace"
    process.stop(10)


def _typed(value: Any) -> Any:
    order = ("metric", "value", "low", "high", "n", "interval", "error", "holdout", "drop", "p_value")
    return [tuple(metric[name] for name in order) for metric in value] if isinstance(value, list) else value


def query(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    addresses = {"KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:1", "SCHEMA_REGISTRY_URL": f"http://{HOST}:1"}
    command = [sys.executable, "-m", "tailrace.cli", "query", *arguments]
    return subprocess.run(
        command,
        env=os.environ | addresses | {"CLICKHOUSE_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
    )


def answer(url: str, *arguments: str) -> str:
    done = query(url, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_row_for_each_window_age_segment_and_metric(url: str) -> None:
    sql = (
        "SELECT toDayOfMonth(window_start) - 1 AS day, age_hours, version, segment, metric, value"
        " FROM shop_eu_performance ORDER BY ALL"
    )
    rows = [list(row.values()) for row in json.loads(answer(url, "--json", sql))]
    assert rows == [
        [1, 1, 1, "", "accuracy", 0.7],
        [1, 24, 1, "", "accuracy", 0.81],
        [1, 24, 1, "", "auc", 0.9],
        [2, 1, 1, "", "accuracy", 0.6],
        [2, 1, 1, "region=north", "accuracy", 0.5],
        [2, 1, 2, "", "accuracy", 0.4],
        [3, 1, 1, "", "accuracy", 0.2],
    ]


def test_the_latest_is_the_newest_window_with_enough_labels(url: str) -> None:
    sql = "SELECT version, segment, metric, value, mature FROM shop_eu_latest ORDER BY ALL"
    rows = [list(row.values()) for row in json.loads(answer(url, "--format", "json", sql))]
    assert rows == [
        [1, "", "accuracy", 0.6, True],
        [1, "", "auc", 0.9, True],
        [1, "region=north", "accuracy", 0.5, True],
        [2, "", "accuracy", 0.4, False],
    ]


def test_formats(url: str) -> None:
    sql = "SELECT 1 AS a, 'x, \"y\"' AS b, [1, 2] AS c UNION ALL SELECT 2 AS a, 'é', [] ORDER BY a;"
    assert list(csv.reader(io.StringIO(answer(url, "-f", "csv", sql)))) == [
        ["a", "b", "c"],
        ["1", 'x, "y"', "[1,2]"],
        ["2", "é", "[]"],
    ]
    vertical = answer(url, "--format", "vertical", sql)
    assert "Row 1:" in vertical
    assert "b: é" in vertical
    table = answer(url, "--format", "table", sql)
    assert table == answer(url, sql)
    assert table.splitlines()[0].split() == ["a", "b", "c"]
    assert json.loads(answer(url, "--format", "json", sql))[1] == {"a": 2, "b": "é", "c": []}


@pytest.mark.parametrize("answer_format", ["table", "json", "csv", "vertical"])
def test_what_is_wrong_is_a_sentence(url: str, answer_format: str) -> None:
    done = query(url, "--format", answer_format, "SELECT * FROM nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "UNKNOWN_TABLE" in done.stderr
    assert "Traceback" not in done.stderr
    assert url.partition("@")[0].rpartition(":")[2] not in done.stderr
    done = query(url, "--format", answer_format, "DROP TABLE alerts")
    assert (done.returncode, "this user only reads" in done.stderr) == (1, True)


def test_formats_that_are_none(url: str) -> None:
    assert query(url, "--format", "parquet", "SELECT 1").returncode == 2
    assert query(url, "--json", "--format", "csv", "SELECT 1").returncode == 2
