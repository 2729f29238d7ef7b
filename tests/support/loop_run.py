"""A project whose loop is fed a timeline, and what came of it; and another that is fed what the first one logged."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from tests.support.observer import Observer, Reference, Seen
from tests.support.project import Project, running_project

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection, connect
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.lanes import Lane
from tailrace.demo.timeline import Timeline, timeline
from tailrace.package_data import data_dir
from tailrace.streaming.backends.kafka.clients import sending
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.watermark_records import watermark_record

CREDIT = data_dir("contracts", "models", "credit.yaml")
LANE = Lane("credit")
PARTITIONS = 3
DAY_MS = 86_400_000
END_MS = 1_767_225_600_000  # 2026-01-01: long past, so that the wall clock has no say
SEEDED = 3
INPUTS = (LANE.requests, LANE.labels, LANE.actions)
COPIED = (LANE.predictions, LANE.shadow_predictions, LANE.labels, LANE.actions)


def loans(per_day: float) -> Timeline:
    """The demo's story, with fewer loans."""
    contract = load_contract(CREDIT)
    days = 165.0
    return timeline(contract, SEEDED, END_MS, seconds=days, rate=int(per_day))


@contextmanager
def running_loop(path: Path, plan: Timeline) -> Iterator[Loop]:
    """A running project with the model ``credit``, whose first version is champion."""
    models = path / "contracts" / "models"
    models.mkdir(parents=True)
    (models / CREDIT.name).write_bytes(CREDIT.read_bytes())
    plan.history.write_csv(path / "loans.csv")
    with running_project(path, TAILRACE_LANE_PARTITIONS=str(PARTITIONS)) as project:
        project.run("train", "credit", "--data", "loans.csv", "--where", "TRUE")
        project.wait_for_champion("credit", 1)
        with closing(Loop(project)) as loop:
            yield loop


@contextmanager
def running_loops(paths: Sequence[Path], plan: Timeline) -> Iterator[list[Loop]]:
    """Several, started side by side."""
    with ExitStack() as stack, ThreadPoolExecutor(len(paths)) as pool:
        yield list(pool.map(lambda path: stack.enter_context(running_loop(path, plan)), paths))


class Loop:
    """What runs in a project, looked at from outside."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.connection: Connection = connect({}, project.home)
        self._open = ExitStack()

    def close(self) -> None:
        self._open.close()

    def producer(self) -> Producer:
        """A producer that ends with the loop."""
        options = {"enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        return self._open.enter_context(sending({**self.connection.kafka, **options}))

    # --- looking

    def observer(self) -> Observer:
        return Observer(self.connection.kafka, self.connection.registry, self.connection.registry_auth)

    def records(self, topic: str) -> list[dict[str, Any]]:
        """Decoded, in order of offset; watermark records and tombstones left out."""
        seen = self.observer()
        found = sorted(seen.read(topic), key=lambda record: record.at)
        return [seen.decode(record.value) for record in found if record.value is not None]

    def rollouts(self) -> list[dict[str, Any]]:
        """The steps in force."""
        steps: list[dict[str, Any]] = []
        for record in self.records("tailrace.rollouts"):
            if record["follows"] == len(steps):
                steps.append(record)
        return steps

    def stand_still(self, seconds: float, timeout: float = 60) -> None:
        """Until nothing has been appended to any topic for so long."""
        deadline = time.monotonic() + timeout
        before, since = self._ends(), time.monotonic()
        while time.monotonic() - since < seconds and time.monotonic() < deadline:
            time.sleep(0.25)
            if (now := self._ends()) != before:
                before, since = now, time.monotonic()

    def _ends(self) -> dict[Any, int]:
        admin = AdminClient({**self.connection.kafka, "log_level": 0})
        topics = admin.list_topics(timeout=20).topics
        places = [
            TopicPartition(name, number)
            for name, topic in topics.items()
            if name.startswith(("credit.", "tailrace."))
            for number in topic.partitions
        ]
        futures = admin.list_offsets({place: OffsetSpec.latest() for place in places})
        return {(place.topic, place.partition): each.result(20).offset for place, each in futures.items()}

    # --- killing

    def kill(self, name: str) -> None:
        """SIGKILL, wherever in its life it is; comes back when its successor has started."""
        before = self.project.pid(name)
        with suppress(ProcessLookupError):  # it ended by itself a moment ago
            os.kill(before, signal.SIGKILL)
        self.project.wait(lambda: self.project.pid(name) != before, f"{name} to be started again")


@dataclass(frozen=True)
class Sent:
    """One record of a lane's input, at its place in event time."""

    at: int
    topic: str
    record: dict[str, Any]


def inputs(plan: Timeline) -> list[Sent]:
    """Requests, labels and actions in order of event time."""
    rows = plan.loans.to_dicts()
    truth = [row.pop("defaulted") for row in rows]
    records = [Sent(row["applied_at"], LANE.requests, row) for row in rows]

    def identity(row: int, at: int) -> dict[str, Any]:
        return {"request_id": rows[row]["request_id"], "loan_id": rows[row]["loan_id"], "applied_at": at}

    for row, at in zip(plan.labels.row.tolist(), plan.labels.time.tolist(), strict=True):
        records.append(Sent(at, LANE.labels, identity(row, at) | {"defaulted": truth[row]}))
    for row, at, done in zip(plan.actions.row.tolist(), plan.actions.time.tolist(), plan.done, strict=True):
        records.append(Sent(at, LANE.actions, identity(row, at) | {"action": done}))
    return sorted(records, key=lambda sent: sent.at)


class Feeder:
    """Writes a timeline into a loop, and lets time pass in its lane once a day."""

    def __init__(self, loop: Loop, plan: Timeline) -> None:
        registry = RegistryClient(loop.connection.registry, loop.connection.registry_auth)
        self._codec = Codec(registry)
        self._ids = {topic: _schema_id(registry, topic) for topic in INPUTS}
        self._producer = loop.producer()
        self._rest = inputs(plan)
        self._day = plan.start_ms // DAY_MS

    def until(self, event_time: int) -> None:
        """Everything from before this event time, and the time itself."""
        while self._rest and self._rest[0].at < event_time:
            sent = self._rest.pop(0)
            if sent.at // DAY_MS > self._day:
                self._day = sent.at // DAY_MS
                self._pass_time(self._day * DAY_MS)
            key = sent.record["loan_id"].encode()
            value = self._codec.encode(self._ids[sent.topic], sent.record)
            self._produce(sent.topic, value, key, partition_of(key, PARTITIONS))
        self._pass_time(event_time)
        assert self._producer.flush(60) == 0

    def _pass_time(self, event_time: int) -> None:
        for topic in INPUTS:
            for partition in range(PARTITIONS):
                record = watermark_record(topic, partition, event_time)
                self._produce(topic, None, None, partition, list(record.headers))

    def _produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, headers: Any = ()
    ) -> None:
        self._producer.produce(topic, value, key, partition=partition, headers=headers)
        self._producer.poll(0)


def _schema_id(registry: RegistryClient, topic: str) -> int:
    found = registry.latest(f"{topic}-value")
    assert found is not None, topic
    return found.id


def logged(loop: Loop) -> list[Seen]:
    """What the scorers answered and what came to be known, in the order in which it was appended."""
    seen = loop.observer()
    found = [record for topic in COPIED for record in seen.read(topic)]
    return sorted(found, key=lambda record: (record.appended_ms, record.at))


def is_prediction(record: Seen) -> bool:
    return record.value is not None and record.at[0] in (LANE.predictions, LANE.shadow_predictions)


def copy(records: list[Seen], revision_of: Mapping[Reference, int], loop: Loop, rate: float) -> None:
    """Writes another loop's log into this one, each record into its partition, so many a second.

    A prediction comes no earlier than the rollout revision that it names: so it was where it was made.
    """
    producer = loop.producer()
    revision = 0
    due = time.monotonic()
    for record in records:
        if revision_of.get(record.at, 0) > revision:
            assert producer.flush(120) == 0
            revision = revision_of[record.at]
            loop.project.wait(partial(_has_revision, loop, revision), f"rollout revision {revision}")
            due = time.monotonic()
        due += 1 / rate
        while time.monotonic() < due:
            producer.poll(0.002)
        topic, partition, _ = record.at
        headers = list(record.headers.items())
        producer.produce(topic, record.value, record.key, partition=partition, headers=headers)
        producer.poll(0)
    assert producer.flush(120) == 0


def _has_revision(loop: Loop, revision: int) -> bool:
    return len(loop.rollouts()) >= revision


# --- what is compared


def results(loop: Loop) -> dict[str, Any]:
    """Everything that the loop made of its log, by id; references of derived records left out."""
    return {
        "outcomes": _by_id(loop.records(LANE.outcomes), "outcome_id"),
        "drift reports": _by_id(loop.records("tailrace.drift-reports"), "report_id"),
        "performance reports": _by_id(loop.records("tailrace.performance-reports"), "report_id"),
        "alerts": {
            f"{alert['alert_id']} {alert['state']} {alert['at']}": alert
            for alert in loop.records("tailrace.alerts")
            if alert["service"] in ("drift", "evaluator")
        },
        "training runs": {
            f"{run['run_id']} {run['state']}": _without(run, "offsets")
            for run in loop.records("tailrace.training-runs")
            if run["state"] not in ("training", "trained")
        },
        "rollout steps": {str(step["revision"]): _step(step) for step in loop.rollouts()},
    }


def _by_id(records: list[dict[str, Any]], name: str) -> dict[str, Any]:
    by_id: dict[str, Any] = {}
    for record in records:
        assert record[name] not in by_id, f"{name} {record[name]} is there twice"
        by_id[record[name]] = record
    return by_id


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: fact for name, fact in step["evidence"].items() if not name.startswith("folded ")}
    return _without(step, "source") | {"evidence": facts}


def _without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Where two results differ: what only one has, and the first field of what both have otherwise."""
    lines = []
    for kind in one:
        a, b = one[kind], other[kind]
        if a == b:
            continue
        lines.append(f"{kind}: {len(a)} and {len(b)}")
        for name, mine, theirs in (("only undisturbed", a, b), ("only killed", b, a)):
            extra = [mine[key] for key in mine if key not in theirs]
            if extra:
                lines.append(f"  {name}: {len(extra)}, such as {json.dumps(extra[0], default=str)[:700]}")
        for key in [key for key in a if key in b and a[key] != b[key]][:3]:
            fields = [
                f"{n}: {json.dumps(a[key][n], default=str)[:200]} / {json.dumps(b[key][n], default=str)[:200]}"
                for n in a[key]
                if a[key][n] != b[key].get(n)
            ]
            lines.append(f"  {key}: " + "; ".join(fields[:4]))
    return "\n".join(lines)
