"""The evaluator behind the joiner as processes on a real broker, killed in between: each window judged once at each
age, as scikit-learn judges the raw values.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from confluent_kafka import Producer
from sklearn import metrics as sk
from tests.support import models
from tests.support.cluster import broker_with_registry
from tests.support.waiting import until

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import label_schema, prediction_schema
from tailrace.contracts.state.contracts import Contracts
from tailrace.control.apply import apply, plan
from tailrace.control.publish import publish_package
from tailrace.local.ports import free_port
from tailrace.local.process import Process
from tailrace.models.package.build import build_package
from tailrace.signing.trust import own_key
from tailrace.streaming.backends.kafka.clients import end
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.records import Record
from tailrace.streaming.watermark_records import watermark_record
from tailrace.testing.signed_records import home_with_keys

MODEL = "credit"
LANE = Lane(MODEL)
PARTITIONS = 3
WINDOW = 60_000
START = 1_700_000_040_000 - 1_700_000_040_000 % WINDOW
ROWS = 120
WRONG = (0.1, 0.1, 0.6, 0.1)
"""By window, the share of answers that turn out wrong."""
CONTRACT = models.CONTRACT.replace("TARGET", models.TARGETS["binary"]) + (
    "event_time: {lateness: 1s}\n"
    "labels: {horizon: 2min}\n"
    "drift: {window: 1min}\n"
    'quality: {window: 1min, judge_at: [0s, 1min, 2min], drop: {accuracy: 0.1}, slices: ["age > 50"], mature: 50%}\n'
)


class Answer(NamedTuple):
    """What two versions said about a request, and what is true of it."""

    time: int
    age: int
    score: float
    shadow_score: float
    truth: bool
    labelled: bool


class World:
    """A broker, a contract, a version; predictions and labels written by hand."""

    def __init__(self, connection: Connection, home: Path, env: dict[str, str]) -> None:
        home_with_keys(home)
        connection = replace(connection, home=home)
        self.connection, self.home, self.env = connection, home, env
        registry = RegistryClient(connection.registry, connection.registry_auth)
        self.codec, self.control = Codec(registry), ControlCodec(registry)
        file = home / f"{MODEL}.yaml"
        file.write_text(CONTRACT)
        self.contract = load_contract(file)
        contracts = Contracts()
        apply(connection, plan([file], contracts), contracts, print)
        frame, truth = models.rows(n=2_000)
        package = build_package(models.estimator("logistic").fit(frame, truth), frame, truth, self.contract)
        self.holdout = package.manifest.holdout.metrics
        self.digest = publish_package(connection, package, own_key(home), home).digest
        self.ids = {
            topic: registry.register(f"{topic}-value", schema(self.contract))
            for topic, schema in (
                (LANE.predictions, prediction_schema),
                (LANE.shadow_predictions, prediction_schema),
                (LANE.labels, label_schema),
            )
        }
        self.producer = Producer({**connection.kafka})
        self.processes: dict[str, Process] = {}

    def close(self) -> None:
        for process in self.processes.values():
            process.stop(10)
        end(self.producer)

    def write(self, record: Record) -> None:
        partition = partition_of(record.key, PARTITIONS) if record.partition is None else record.partition
        self.producer.produce(record.topic, record.value, record.key, partition, headers=list(record.headers))
        self.producer.poll(0)

    def answer(self, number: int, given: Answer) -> None:
        key = f"r{number}"
        request = {"request_id": key, "income": 1.0, "age": given.age}
        source = {
            "topic": LANE.requests,
            "partition": partition_of(key.encode(), PARTITIONS),
            "offset": number,
        }
        for topic, role, version, score in (
            (LANE.predictions, "champion", 1, given.score),
            (LANE.shadow_predictions, "shadow", 2, given.shadow_score),
        ):
            event = {
                "prediction_id": f"{role}-{number}",
                "request_id": key,
                "key": key,
                "event_time": given.time,
                "source": source,
                "model": MODEL,
                "version": version,
                "artifact_digest": self.digest if version == 1 else "b" * 64,
                "contract_digest": self.contract.digest,
                "rollout_revision": 1,
                "runtime": {},
                "role": role,
                "served_by": "model",
                "request": request,
                "replaced": [],
                "score": score,
                "probabilities": {},
                "predicted_class": str(score > 0.5).lower(),
                "action": str(score > 0.5).lower(),
                "action_propensity": 1.0,
                "arm_propensity": 1.0,
                "guardrails": [],
                "guarded": False,
                "latency_ms": 1.0,
            }
            self.write(Record(topic, self.codec.encode(self.ids[topic], event), key.encode()))

    def label(self, number: int, time: int, truth: bool) -> None:
        key = f"r{number}"
        label = {"request_id": key, "event_time": time, "defaulted": truth}
        self.write(Record(LANE.labels, self.codec.encode(self.ids[LANE.labels], label), key.encode()))

    def pass_time(self, time: int) -> None:
        for partition in range(PARTITIONS):
            for topic in (LANE.predictions, LANE.shadow_predictions, LANE.labels, LANE.actions):
                offset = 10**9 if topic in (LANE.predictions, LANE.shadow_predictions) else None
                self.write(watermark_record(topic, partition, time, offset=offset))
        assert self.producer.flush(30) == 0

    def start(self, name: str) -> None:
        env = self.env | {"TAILRACE_INSTANCE": "0", "TAILRACE_HEALTH_PORT": str(free_port())}
        process = Process([sys.executable, "-m", "tailrace.cli", "run", name], self.home / f"{name}.log", env)
        process.launch()
        self.processes[name] = process

    def reports(self) -> list[dict[str, Any]]:
        messages = read_all(self.connection, [lanes.PERFORMANCE_REPORTS])
        return [self.control.decode("PerformanceReport", message.value()) for message in messages]

    def alerts(self) -> list[dict[str, Any]]:
        messages = read_all(self.connection, [lanes.ALERTS])
        return [self.control.decode("Alert", message.value()) for message in messages]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("TAILRACE_LANE_PARTITIONS", str(PARTITIONS))
    with (
        broker_with_registry(tmp_path, TAILRACE_LANE_PARTITIONS=str(PARTITIONS)) as at,
        closing(World(*at)) as made,
    ):
        yield made


def test_windows_are_judged_once_at_each_age_though_the_service_is_killed(world: World) -> None:
    draw = np.random.default_rng(0)
    world.start("joiner")
    world.start("evaluator")
    given: list[Answer] = []
    for window, error_rate in enumerate(WRONG):
        # In the order of time: what is behind the stream time of its partition is known only when that says so.
        for at in sorted(START + window * WINDOW + draw.integers(WINDOW, size=ROWS)):
            truth, score = bool(draw.random() < 0.5), float(draw.uniform(0.5, 1))
            right = draw.random() >= error_rate
            score = score if truth == right else 1 - score
            shadow = float(np.clip(score + 0.2 * draw.normal(), 0, 1))
            labelled = bool(draw.random() < 0.9)
            given.append(Answer(int(at), int(draw.integers(18, 90)), score, shadow, truth, labelled))
            world.answer(len(given) - 1, given[-1])
        for number, one in list(enumerate(given))[-ROWS:]:
            if one.labelled:
                world.label(number, one.time + WINDOW // 2, one.truth)
        world.pass_time(START + (window + 1) * WINDOW)
        if window in (1, 2):
            # Wherever it is: before, amid or after the last window's parts.
            world.processes["evaluator"].kill()
            world.start("evaluator")
    world.pass_time(START + (len(WRONG) + 3) * WINDOW)
    wanted = {
        (START + w * WINDOW, age * WINDOW, *whose)
        for w in range(len(WRONG))
        for age in range(3)
        for whose in (("champion", None), ("shadow", None), ("shadow", 1))
    }

    def missing() -> set[tuple[Any, ...]]:
        return wanted - {_of(report) for report in world.reports() if not report["segment"]}

    until(lambda: not missing(), "all reports")

    reports = world.reports()
    assert len({report["report_id"] for report in reports}) == len(reports)
    assert {_of(report) for report in reports if not report["segment"]} == wanted
    for report in reports:
        _compare(report, given)
    last = {
        r["window_start"]: r
        for r in reports
        if _of(r)[1:] == (2 * WINDOW, "champion", None) and not r["segment"]
    }
    assert world.holdout["accuracy"] > 0.7
    assert [last[START + w * WINDOW]["verdict"] for w in range(4)] == ["ok", "ok", "drop", "ok"]
    drop = next(m for m in last[START + 2 * WINDOW]["metrics"] if m["metric"] == "accuracy")
    assert drop["holdout"] == world.holdout["accuracy"]
    alerts = world.alerts()
    assert [(a["kind"], a["state"]) for a in alerts] == [
        ("quality-drop", "raised"),
        ("quality-drop", "resolved"),
    ]
    assert len({alert["alert_id"] for alert in alerts}) == 1
    assert alerts[0]["detail"]["window_start"] == str(START + 2 * WINDOW)
    assert list(read_all(world.connection, [LANE.dead_letters])) == []


def _of(report: dict[str, Any]) -> tuple[Any, ...]:
    return report["window_start"], report["age"], report["role"], report["against"]


def _compare(report: dict[str, Any], given: list[Answer]) -> None:
    rows = [
        one
        for one in given
        if report["window_start"] <= one.time < report["window_end"]
        and (not report["segment"] or one.age > 50)
    ]
    known = [one for one in rows if one.labelled and one.time + WINDOW // 2 < report["judged_at"]]
    assert (report["predictions"], report["labelled"]) == (len(rows), len(known))
    if report["against"] is not None:
        return
    truth = np.array([one.truth for one in known])
    score = np.array([one.score if report["role"] == "champion" else one.shadow_score for one in known])
    metrics = {metric["metric"]: metric["value"] for metric in report["metrics"]}
    assert metrics["auc"] == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-9)
    assert metrics["log_loss"] == pytest.approx(sk.log_loss(truth, score), abs=1e-9)
    assert metrics["f1"] == pytest.approx(sk.f1_score(truth, score > 0.5), abs=1e-9)
