"""A file of one's own, from `init` to rows in ClickHouse, against a computation that shares no code with it."""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.support.clickhouse_walls import amend
from tests.support.project import Project
from tests.support.real_data import real_data

from tailrace.clickhouse.client import ClickHouse
from tailrace.connection import connect

ROWS = 12_000
EVERY = datetime.timedelta(minutes=30)
VERSION = "model = 'electricity' AND version = 1"
DELAY = datetime.timedelta(days=1)
FEATURES = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")


def _write_data(file: Path) -> None:
    """The first rows of the real file, or where that is missing rows like them, half-hourly prices."""
    if (real := real_data("electricity.csv")) is not None:
        lines = real.read_text().splitlines()[: ROWS + 1]
        file.write_text("\n".join(lines) + "\n")
        return
    draw = random.Random(1)
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow([*FEATURES, "class"])
        for row in range(ROWS):
            period = row % 48 / 47
            values = [min(1.0, abs(draw.gauss(0.4 + 0.2 * math.sin(6.28 * period), 0.1))) for _ in range(5)]
            up = int(values[0] + 0.3 * values[1] + draw.gauss(0, 0.05) > 0.55)
            writer.writerow([round(period, 6), *(round(v, 6) for v in values), up])


class Expected:
    """What is to be in ClickHouse: from the CSV, the mapping's start, and the model's bytes on the topic."""

    def __init__(self, project: Project, file: Path) -> None:
        with file.open(newline="") as lines:
            self.rows = list(csv.DictReader(lines))
        mapping = (project.path / "contracts" / "data" / "electricity.yaml").read_text()
        match = re.search(r"^start: '?([^'\n]+)'?$", mapping, re.MULTILINE)
        assert match
        self.start = datetime.datetime.fromisoformat(match[1])
        inputs = {name: [float(row[name]) for row in self.rows] for name in FEATURES}
        # `init` leaves out columns that never change; in the file's first year the other state's are such.
        self.ids = f"electricity-{hashlib.sha256(file.read_bytes()).hexdigest()[:10]}"
        self.inputs = {name: values for name, values in inputs.items() if len(set(values)) > 1}
        (record,) = project.json("query", f"SELECT manifest FROM manifests WHERE {VERSION}")
        self.calibration = json.loads(record["manifest"]).get("calibration")
        self.scores = self._scores(project)

    def time(self, row: int) -> datetime.datetime:
        return self.start + row * EVERY

    def _scores(self, project: Project) -> list[float]:
        session = onnxruntime.InferenceSession(_model_bytes(project))
        columns = {i.name: i for i in session.get_inputs()}
        if len(columns) == 1:
            (name,) = columns
            matrix = np.array(list(self.inputs.values())).T
            feed = {name: matrix.astype({"tensor(double)": "f8", "tensor(float)": "f4"}[columns[name].type])}
        else:
            feed = {name: np.array(self.inputs[name])[:, None] for name in columns}
        outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
        (probabilities,) = [v for v in outputs.values() if v.dtype.kind == "f"]
        return [_calibrated(float(p), self.calibration) for p in probabilities[:, 1]]


def _calibrated(score: float, by: dict[str, Any] | None) -> float:
    """The log-odds scaled and moved, where the package says so (Platt, 1999)."""
    if by is None:
        return score
    assert by["method"] == "sigmoid"
    score = min(max(score, 1e-6), 1 - 1e-6)
    return 1 / (1 + math.exp(-(by["slope"] * math.log(score / (1 - score)) + by["offset"])))


def _model_bytes(project: Project) -> bytes:
    """The ONNX file, put together from the chunks topic by the references in ClickHouse's copy of the manifest."""
    manifest = project.json("query", f"SELECT chunks FROM manifests WHERE {VERSION}")
    chunks = manifest[0]["chunks"]
    chunks = json.loads(chunks) if isinstance(chunks, str) else chunks
    consumer = Consumer(
        {**connect({}, project.home).kafka, "group.id": "oracle", "isolation.level": "read_committed"}
    )
    parts: dict[int, bytes] = {}
    for chunk in chunks:
        if chunk["part"] == "model":
            place = TopicPartition("tailrace.model-chunks", int(chunk["partition"]), int(chunk["offset"]))
            consumer.assign([place])
            message = consumer.poll(20)
            assert message is not None
            assert (message.error(), message.offset()) == (None, place.offset)
            parts[int(chunk["index"])] = message.value() or b""
    consumer.close()
    return b"".join(parts[index] for index in sorted(parts))


@pytest.fixture(scope="module")
def replayed(project: Project) -> tuple[dict[str, Any], Expected]:
    file = project.path / "electricity.csv"
    _write_data(file)
    project.run("init", file.name, "--target", "class = 1", "--name", "electricity", "--every", "30min")
    project.run("apply")
    project.run("train", "electricity", "--data", file.name)
    project.wait_for_champion("electricity", 1)
    report = project.json("replay", file.name, "--model", "electricity", "--label-delay", "1d")
    return report, Expected(project, file)


def test_replay_reports_what_it_sent(replayed: tuple[dict[str, Any], Expected]) -> None:
    report, expected = replayed
    assert report["requests"] == ROWS
    assert (report["trained_on"], report["replayed_before"]) == (ROWS // 5, 0)
    assert report["first_event_time"] == expected.time(0).timestamp() * 1000
    now = datetime.datetime.now(datetime.UTC)
    due = sum(expected.time(row) + DELAY <= now for row in range(ROWS))
    assert report["labels"] + report["labels_not_due"] == ROWS
    assert abs(report["labels"] - due) <= 1  # a row may have become due since


def test_every_row_is_answered_and_stored(project: Project, replayed: Any) -> None:
    found = project.json("verify", "--model", "electricity", "--deep", check=False)
    assert found["ok"], found["problems"]
    assert (found["requests"], found["predictions"]) == (ROWS, ROWS)
    assert found["rescored"] == 200


def test_predictions_equal_the_csv_and_the_package(
    project: Project, replayed: tuple[dict[str, Any], Expected]
) -> None:
    _, expected = replayed
    names = ["request_id", "toUnixTimestamp64Milli(event_time) AS at", *expected.inputs]
    names += [
        "score",
        "predicted_class",
        "action",
        "model",
        "version",
        "role",
        "served_by",
        "given_event_time",
    ]
    rows = project.json(
        "query", f"SELECT {', '.join(names)} FROM electricity_predictions ORDER BY request_id"
    )
    assert len(rows) == ROWS
    for number, row in enumerate(rows):
        score = expected.scores[number]
        assert row["request_id"] == f"{expected.ids}-{number:07}"
        assert row["at"] == expected.time(number).timestamp() * 1000
        assert {name: row[name] for name in expected.inputs} == {
            name: values[number] for name, values in expected.inputs.items()
        }
        assert abs(row["score"] - score) < 1e-12
        assert row["predicted_class"] == row["action"] == ("true" if score > 0.5 else "false")
        assert (row["model"], row["version"], row["role"], row["served_by"]) == (
            "electricity",
            1,
            "champion",
            "model",
        )


def test_labels_are_the_truth_a_day_later(
    project: Project, replayed: tuple[dict[str, Any], Expected]
) -> None:
    report, expected = replayed
    rows = project.json(
        "query",
        "SELECT request_id, class_is_1, toUnixTimestamp64Milli(event_time) AS at, labelled_by "
        "FROM electricity_labels ORDER BY request_id",
    )
    assert len(rows) == report["labels"]
    for number, row in enumerate(rows):
        assert row["request_id"] == f"{expected.ids}-{number:07}"
        assert row["class_is_1"] == (expected.rows[number]["class"] == "1")
        assert row["at"] == (expected.time(number) + DELAY).timestamp() * 1000
        assert row["labelled_by"] == "replay"


def test_the_lane_is_told_the_time_in_every_input_partition(
    project: Project, replayed: tuple[dict[str, Any], Expected]
) -> None:
    report, _ = replayed
    for kind in ("requests", "labels", "actions"):
        lines = project.run(
            "tail", f"electricity.{kind}", "--limit", "1000000", "--marks", "--json"
        ).stdout.splitlines()
        watermarks: dict[int, list[str]] = {}
        partitions = set()
        for record in map(json.loads, lines):
            partitions.add(record["partition"])
            if "mark" in record:
                watermarks.setdefault(record["partition"], []).append(record["mark"])
        assert set(watermarks) == partitions
        last = {max(times) for times in watermarks.values()}
        assert len(last) == 1
        assert datetime.datetime.fromisoformat(last.pop()).timestamp() * 1000 > report["last_event_time"]
        assert all(times == sorted(times) for times in watermarks.values())


def test_verify_sees_what_is_wrong_with_the_rows(project: Project, replayed: Any) -> None:
    """Last of all, since it spoils the table: one row taken away, one there twice."""
    table, store = "electricity_labels", ClickHouse.connect(connect({}, project.home))
    removed, doubled = (f"{replayed[1].ids}-{row:07}" for row in (11, 222))
    gone, twice = (
        store.select(f"SELECT _partition, _offset FROM {table} WHERE request_id = '{request_id}'")[0]
        for request_id in (removed, doubled)
    )
    project.run("down")
    amend(
        project.home,
        f"INSERT INTO tailrace.{table} SELECT * FROM tailrace.{table} WHERE request_id = '{doubled}'",
        f"ALTER TABLE tailrace.{table} DELETE WHERE request_id = '{removed}' SETTINGS mutations_sync = 1",
    )
    project.run("up", "--detach")
    report = project.json("verify", "--model", "electricity", "--wait", "1", check=False)
    assert not report["ok"]
    assert (report["lost"], report["duplicated"]) == (0, 0)
    assert {(p["check"], p["topic"], p["partition"], p["offset"]) for p in report["problems"]} == {
        ("unstored", "electricity.labels", gone["_partition"], gone["_offset"]),
        ("stored-twice", "electricity.labels", twice["_partition"], twice["_offset"]),
    }
    done = project.run("verify", "--model", "electricity", "--wait", "0", check=False)
    assert done.returncode == 1
    assert f"electricity.labels/{gone['_partition']}/{gone['_offset']}" in done.stdout
