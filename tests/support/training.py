"""A model's lane with outcomes, reports and alerts written by hand, and the trainer as a process."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from tests.support.environment import environment
from tests.support.producing import produce

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import lane_schemas, subject
from tailrace.local.process import Process
from tailrace.signing.trust import own_key
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics, lane_topics
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import Record, RecordRef
from tailrace.testing.control_records import contract_record
from tailrace.testing.signed_records import home_with_keys, signed_at

DAY = 86_400_000
PARTITIONS = 2

CONTRACT = """
model: {model}
owner: {{team: tests}}
features:
  income: {{type: number, missing: impute}}
  purpose: {{categories: [car, home], unseen: home}}
context:
  region: {{categories: [north, south]}}
target: {{name: defaulted, type: boolean}}
labels: {{horizon: 3d}}
drift: {{window: 1d, min_rows: 20}}
quality: {{window: 1d, judge_at: [0d, 1d]}}
training:
  template: {template}
  window: 30d
  triggers: {triggers}
  min_labels: 200
  cooldown: 3d
gates: {gates}
policy: [{{do: approve}}]
"""


def contract_text(
    model: str,
    template: str = "logistic-regression",
    triggers: str = "[{drift: alert}, {quality: alert}]",
    gates: str = "{}",
) -> str:
    return CONTRACT.format(model=model, template=template, triggers=triggers, gates=gates)


def event(
    number: int, day: int, contract: ModelContract, *, flipped: bool = False, version: int = 1, **changed: Any
) -> dict[str, Any]:
    """The outcome of one request, whose truth follows from its income (the other way round where ``flipped``)."""
    rng = random.Random(number)
    income = rng.gauss(0.0, 1.0)
    purpose = rng.choice(["car", "home"])
    truth = (income + (0.5 if purpose == "car" else 0.0) + rng.gauss(0.0, 0.3) > 0) != flipped
    source = RecordRef(f"{contract.lane}.requests", number % PARTITIONS, number)
    time_ms = day * DAY + number % 1000 * 1000
    role = changed.get("role", "champion")
    prediction = {
        "prediction_id": prediction_id(role, source, version),
        "request_id": f"r{number}",
        "key": f"r{number}",
        "event_time": time_ms,
        "source": source._asdict(),
        "model": contract.model,
        "version": version,
        "artifact_digest": "d" * 64,
        "contract_digest": contract.digest,
        "rollout_revision": 1,
        "runtime": {},
        "role": role,
        "served_by": "model",
        "request": {
            "request_id": f"r{number}",
            "income": income,
            "purpose": purpose,
            "region": rng.choice(["north", "south"]),
        },
        "replaced": [],
        "score": 0.5,
        "probabilities": {},
        "action": "approve",
        "action_propensity": 1.0,
        "arm_propensity": 1.0,
        "guardrails": [],
        "guarded": False,
        "latency_ms": 1.0,
    }
    outcome = {
        "outcome_id": f"o{number}-{changed.get('revision', 1)}-{role}-{version}",
        "revision": 1,
        "state": "labelled",
        "known_at": time_ms + 3_600_000,
        "late": False,
        "label": truth,
        "prediction": prediction,
    }
    return outcome | {k: v for k, v in changed.items() if k != "role"}


def performance_report(contract: ModelContract, day: int, labelled: int, **changed: Any) -> dict[str, Any]:
    """Of the champion, version 1, for the window of that day when it closed."""
    return {
        "report_id": f"{contract.model}-{day}-{changed.get('age', 0)}",
        "model": contract.model,
        "version": 1,
        "role": "champion",
        "segment": "",
        "against": None,
        "window_start": day * DAY,
        "window_end": (day + 1) * DAY,
        "age": 0,
        "judged_at": (day + 1) * DAY,
        "contract_digest": contract.digest,
        "artifact_digest": "d" * 64,
        "predictions": labelled,
        "labelled": labelled,
        "unlabelled": 0,
        "late_labels": 0,
        "label_share": 1.0,
        "mature": True,
        "metrics": [],
        "verdict": "ok",
    } | changed


def drift_report(contract: ModelContract, day: int, verdict: str = "quiet") -> dict[str, Any]:
    return {
        "report_id": f"{contract.model}-drift-{day}",
        "model": contract.model,
        "version": 1,
        "role": "champion",
        "segment": "",
        "window_start": day * DAY,
        "window_end": (day + 1) * DAY,
        "contract_digest": contract.digest,
        "artifact_digest": "d" * 64,
        "rows": 100,
        "late": 0,
        "alpha": 0.01,
        "verdict": verdict,
        "tests": [],
    }


def alert(
    contract: ModelContract, day: int, kind: str = "drift", state: str = "raised", version: int = 1
) -> dict[str, Any]:
    """Raised by the window of that day."""
    return {
        "alert_id": f"{contract.model}-{kind}-{day}",
        "state": state,
        "kind": kind,
        "severity": "warning",
        "model": contract.model,
        "version": version,
        "service": "drift" if kind == "drift" else "evaluator",
        "summary": "the world has changed",
        "detail": {"window_start": str(day * DAY)},
        "source": None,
        "at": (day + 1) * DAY,
    }


@dataclass
class TrainingLane:
    """The lane of a model whose contract is applied, on a real cluster, and a home whose key is trusted."""

    connection: Connection
    model: str
    home: Path
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        registry = RegistryClient(self.connection.registry, self.connection.registry_auth)
        self.contract = load_contract(contract_text(self.model, **self.options))
        self.lane = Lane(self.contract.lane)
        self.key = own_key(home_with_keys(self.home))
        self.connection = replace(self.connection, home=self.home)
        ensure_topics(
            self.connection.kafka, [*control_topics(), *lane_topics(self.lane.name, partitions=PARTITIONS)]
        )
        self.codec, self.control = Codec(registry), ControlCodec(registry)
        schema = lane_schemas(self.contract)[self.lane.outcomes]
        self._outcome_id = registry.register(subject(self.lane.outcomes, self.model, self.lane.name), schema)
        self.apply()

    def apply(self) -> None:
        record = contract_record(self.contract)
        self.write([self.record("Contract", record)])

    def record(self, name: str, record: dict[str, Any]) -> Record:
        return signed_at(self.connection, name, record, self.model.encode())

    def outcome(self, outcome: dict[str, Any]) -> Record:
        value = self.codec.encode(self._outcome_id, outcome)
        partition = outcome["prediction"]["source"]["partition"]
        return Record(self.lane.outcomes, value, b"k", partition=partition)

    def write(self, records: Iterable[Record], *, abort: bool = False) -> None:
        """In one transaction."""
        producer = Producer(
            {**self.connection.kafka, "transactional.id": f"test-{self.model}", "log_level": 0}
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        for record in records:
            produce(producer, record)
        producer.flush(30)
        (producer.abort_transaction if abort else producer.commit_transaction)(30)

    def days(self, days: Iterable[int], rows: int = 120, *, flipped: bool = False) -> None:
        """Outcomes and reports of these days, quiet ones."""
        for day in days:
            numbers = range(day * 1000, day * 1000 + rows)
            self.write(
                [
                    *(self.outcome(event(n, day, self.contract, flipped=flipped)) for n in numbers),
                    self.record("DriftReport", drift_report(self.contract, day)),
                    self.record("PerformanceReport", performance_report(self.contract, day, rows)),
                ]
            )

    def runs(self) -> list[dict[str, Any]]:
        """Every record about the model's runs."""
        records = (
            self.control.decode("TrainingRun", m.value())
            for m in read_all(self.connection, [lanes.TRAINING_RUNS])
        )
        return [record for record in records if record["model"] == self.model]

    def ended(self) -> list[dict[str, Any]]:
        return [r for r in self.runs() if r["state"] in ("published", "rejected", "failed")]

    def trainer(self, log: Path) -> Process:
        """The trainer, launched."""
        process = Process(
            [sys.executable, "-m", "tailrace.cli", "run", "trainer"],
            log,
            os.environ
            | {
                **environment(self.connection),
                "TAILRACE_HOME": str(self.home),
            },
        )
        process.launch()
        return process


def states(records: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for record in records:
        yield record["run_id"], record["state"]
