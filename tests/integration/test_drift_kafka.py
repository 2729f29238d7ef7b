"""drift as a process on a real broker, killed in between: each window judged once, as scipy judges the raw values."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from scipy import stats
from tests.support import models
from tests.support.environment import environment
from tests.support.producing import produce
from tests.support.waiting import until

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import prediction_schema
from tailrace.contracts.state.contracts import Contracts
from tailrace.control.apply import apply, plan
from tailrace.control.publish import publish_package
from tailrace.local.ports import free_port
from tailrace.local.process import Process
from tailrace.models.package.build import build_package
from tailrace.models.reference import NumberProfile, Reference
from tailrace.signing.trust import own_key
from tailrace.streaming.backends.kafka.clients import end
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics
from tailrace.streaming.records import Record
from tailrace.streaming.watermark_records import watermark_record
from tailrace.testing.signed_records import home_with_keys

MODEL = "drifting"
LANE = Lane(MODEL)
PARTITIONS = 3
WINDOW = 60_000
START = 1_700_000_040_000 - 1_700_000_040_000 % WINDOW
SHIFTS = (1.0, 1.0, 3.0, 3.0, 1.0)
"""By window, by how much incomes are multiplied."""
ROWS = 300
CONTRACT = (
    models.CONTRACT.replace("model: credit", f"model: {MODEL}").replace("TARGET", models.TARGETS["binary"])
    + "event_time: {lateness: 1s}\ndrift: {window: 1min, min_rows: 100, false_alerts: {at_most: 1, per: 1h}}\n"
)


@pytest.fixture
def start(stack: Connection, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Starts the service; what runs at the end is stopped."""
    assert stack.clickhouse
    env = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")} | {
        **environment(stack),
        "TAILRACE_HOME": str(tmp_path),
        "TAILRACE_INSTANCE": "0",
    }
    started: list[Process] = []

    def launch() -> Process:
        command = [sys.executable, "-m", "tailrace.cli", "run", "drift"]
        ports = {"TAILRACE_HEALTH_PORT": str(free_port())}
        process = Process(command, tmp_path / f"drift-{len(started)}.log", env | ports)
        process.launch()
        started.append(process)
        return process

    yield launch
    for process in started:
        process.stop(10)


class World:
    """A contract and a version of a real package, and predictions of it that are written by hand."""

    def __init__(self, connection: Connection, home: Path) -> None:
        home_with_keys(home)
        self.connection = connection = replace(connection, home=home)
        registry = RegistryClient(connection.registry, connection.registry_auth)
        self.codec, self.control = Codec(registry), ControlCodec(registry)
        file = home / f"{MODEL}.yaml"
        file.write_text(CONTRACT)
        self.contract = load_contract(file)
        contracts = Contracts()
        apply(connection, plan([file], contracts), contracts, print)
        frame, truth = models.rows(n=2_000)
        package = build_package(models.estimator("logistic").fit(frame, truth), frame, truth, self.contract)
        self.digest = publish_package(connection, package, own_key(home), home).digest
        self.reference = Reference.from_bytes(package.parts["reference"])
        self.schema_id = registry.register(f"{LANE.predictions}-value", prediction_schema(self.contract))
        self.producer = Producer({**connection.kafka})

    def close(self) -> None:
        end(self.producer)

    def write(self, record: Record) -> None:
        produce(self.producer, record)

    def predict(self, number: int, time: int, row: dict[str, Any]) -> None:
        event = {
            "prediction_id": f"p{number}",
            "request_id": f"r{number}",
            "key": f"r{number}",
            "event_time": time,
            "source": {"topic": LANE.requests, "partition": 0, "offset": number},
            "model": MODEL,
            "version": 1,
            "artifact_digest": self.digest,
            "contract_digest": self.contract.digest,
            "rollout_revision": 1,
            "runtime": {},
            "role": "champion",
            "served_by": "model",
            "request": {"request_id": f"r{number}", **row},
            "replaced": [],
            "probabilities": {},
            "action": "none",
            "action_propensity": 1.0,
            "arm_propensity": 1.0,
            "guardrails": [],
            "guarded": False,
            "latency_ms": 1.0,
        }
        value = self.codec.encode(self.schema_id, event)
        self.write(Record(LANE.predictions, value, b"k", (), number % PARTITIONS))

    def reports(self) -> list[dict[str, Any]]:
        messages = read_all(self.connection, [lanes.DRIFT_REPORTS])
        return [r for m in messages if (r := self.control.decode("DriftReport", m.value()))["model"] == MODEL]

    def alerts(self) -> list[dict[str, Any]]:
        messages = read_all(self.connection, [lanes.ALERTS])
        return [a for m in messages if (a := self.control.decode("Alert", m.value()))["model"] == MODEL]


def test_windows_are_judged_once_though_the_service_is_killed(
    stack: Connection,
    tmp_path: Path,
    start: Callable[[], Process],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("TAILRACE_LANE_PARTITIONS", str(PARTITIONS))
    ensure_topics(stack.kafka, control_topics())
    world = World(stack, tmp_path)
    request.addfinalizer(world.close)
    rng = np.random.default_rng(0)
    incomes: dict[int, list[float]] = {}
    service = start()
    for window, times in enumerate(SHIFTS):
        frame, _ = models.rows(n=ROWS, seed=window + 1)
        for number, row in enumerate(frame.to_dict("records")):
            row = {k: None if v is None or v != v else v for k, v in row.items()}
            if row["income"] is not None:
                row["income"] *= times
                incomes.setdefault(START + window * WINDOW, []).append(row["income"])
            world.predict(window * ROWS + number, START + window * WINDOW + int(rng.integers(WINDOW)), row)
        world.write(Record(LANE.predictions, b"nonsense", b"k", (), window % PARTITIONS))
        world.producer.flush(30)
        if window in (1, 3):
            # Wherever it is: before, amid or after the last window's parts.
            until(lambda seen=window - 1: len(world.reports()) >= seen)
            service.kill()
            service = start()
    for partition in range(PARTITIONS):
        world.write(watermark_record(LANE.predictions, partition, START + len(SHIFTS) * WINDOW + 1_000))
    world.producer.flush(30)
    until(lambda: len(world.reports()) >= len(SHIFTS))

    reports = world.reports()
    assert [report["window_start"] for report in reports] == sorted(incomes)
    assert len({report["report_id"] for report in reports}) == len(reports)
    assert [report["verdict"] for report in reports] == ["quiet", "quiet", "drift", "drift", "quiet"]
    assert {report["rows"] for report in reports} == {ROWS}
    profile = world.reference.features["income"]
    assert isinstance(profile, NumberProfile)
    for report in reports:
        test = next(t for t in report["tests"] if (t["feature"], t["test"]) == ("income", "ks"))
        expected = stats.ks_2samp(incomes[report["window_start"]], profile.sample)
        assert test["statistic"] == pytest.approx(expected.statistic, abs=1e-9)
        assert test["p_value"] == pytest.approx(expected.pvalue, abs=1e-9)
    alerts = world.alerts()
    assert [alert["state"] for alert in alerts] == ["raised", "resolved"]
    assert alerts[0]["detail"]["features"].split(",")[0] == "income"
    assert [message.value() for message in read_all(stack, [LANE.dead_letters])] == [b"nonsense"] * len(
        SHIFTS
    )
