"""A whole small loop in memory: every service that runs on the exactly-once runner, and the sink, on one log."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tests.support import drifting
from tests.support.encoding_store import EncodingClient, typed_store
from tests.support.memory_key_value_store import MemoryKeyValueStore
from tests.support.reports import alert
from tests.support.scoring import NOW, Publisher
from tests.support.simulation import Process, quarantine

from tailrace.clickhouse.tables import CONTROL_TABLES, columns_of
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import CONTROL_NAMES, control_schema
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import lane_schemas, subject
from tailrace.contracts.state.lane_clocks import LaneClock, record_of
from tailrace.drift.windows import DriftWindows
from tailrace.evaluator.windows import PerformanceWindows
from tailrace.joiner.processor import JoiningProcessor
from tailrace.models.columns import Array, Columns
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest
from tailrace.rollout.processor import RolloutProcessor
from tailrace.scorer.processor import ScoringProcessor
from tailrace.signing.errors import SignatureRefused
from tailrace.signing.records import command_bytes, sign_command
from tailrace.signing.signers import OWNER
from tailrace.signing.trust import Place
from tailrace.sink.app import all_contracts
from tailrace.sink.loop import Sink
from tailrace.sink.rows import DEAD_LETTER_LAYOUT, UNREADABLE_LAYOUT, RowReader
from tailrace.streaming.backends.kafka.topics import control_topics
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.inline_executor import Inline
from tailrace.streaming.processor import Processor
from tailrace.streaming.records import Message, Record
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.testing.formula_model import formula_model
from tailrace.testing.signed_records import HOME, MemoryKey, MemoryTrust
from tailrace.trainer.decide import decide
from tailrace.trainer.events import TOPICS, Events
from tailrace.trainer.events import record_of as training_run
from tailrace.trainer.happened import CaughtUp
from tailrace.trainer.run import OpenTrigger, Run, run_id
from tailrace.trainer.state import State
from tailrace.windows.kinds import Windows
from tailrace.windows.processor import WindowedProcessor

CONTRACT = (
    drifting.CONTRACT.replace("lateness: 1h", "lateness: 1s, skew: 5min")
    .replace("window: 1d, min_rows: 20, false_alerts: {at_most: 1, per: 30d}", "window: 5s, min_rows: 8")
    .replace("target:", "labels: {horizon: 20s}\nquality: {window: 5s, judge_at: [0s, 20s]}\ntarget:")
)
LANE = Lane("credit")
CLOCK = LaneClock("wall", "ada", NOW)
PARTITIONS = 2
SERVICES = ("scorer", "shadow-scorer", "joiner", "drift", "evaluator", "rollout")


def refuse_command(command: Mapping[str, Any], place: Place) -> str | None:
    """Why a command is not to be obeyed: the owner's key alone signs commands here."""
    data = command_bytes(HOME, command)
    try:
        MemoryTrust().check(
            "the command", None, command["key_id"] or "", command["signature"] or b"", data, (OWNER,), place
        )
    except SignatureRefused as refused:
        return str(refused)
    return None


class Income:
    """Runs as a model."""

    def run(self, columns: Columns, rows: int) -> Array:
        return (1 / (1 + np.exp(-np.nan_to_num(columns["income"])))).reshape(rows, 1)


class SmallLoop:
    """One model with a champion and a shadow, and all that reads and writes its lane.

    Attributes:
        ended: what ended a service, by name; empty while all live.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.log = MemoryLog(start_ms=NOW)
        self.publisher = Publisher()
        self.registry = self.publisher.registry
        for topic in control_topics():
            self.log.create_topic(topic.name)
        for name in LANE.topics:
            self.log.create_topic(name, PARTITIONS)
        records = [self.publisher.contract(CONTRACT)]
        (self.contract,) = self.publisher.contracts["credit"]
        self.ids = {
            topic: self.registry.register(subject(topic, "credit", "credit"), schema)
            for topic, schema in lane_schemas(self.contract).items()
        }
        models = {version: formula_model(self.contract, version, Income()) for version in (1, 2)}
        records += [self.publisher.manifest(version, model) for version, model in models.items()]
        first = {"step": "first-champion", "version": 1, "champion": 1, "shadow": [2]}
        evidence = {"sequence": "2", "event_time": str(NOW)}
        records.append(self.publisher.rollout(**first, evidence=evidence))
        records.append(self.publisher.control.record("Clock", record_of("credit", CLOCK), b"credit"))
        records += self._decided()
        for record in records:
            self.write(record)
        self.references = drifting.draw(200, np.random.default_rng(1))
        tables = {table: columns_of(control_schema(CONTROL_NAMES[t])) for t, table in CONTROL_TABLES.items()}
        fixed = {layout.table: layout.columns for layout in (UNREADABLE_LAYOUT, DEAD_LETTER_LAYOUT)}
        self.tables = typed_store({**tables, **fixed})
        self.processes = {name: self._start(name) for name in (*SERVICES, "sink")}
        self.ended: dict[str, BaseException] = {}
        self.asked = 0
        self._revisions = dict.fromkeys((lanes.CONTRACTS, lanes.ROLLOUTS, lanes.CLOCKS), (0, 0))

    def _decided(self) -> list[Record]:
        """A command, an alert and a training run, that there is one of each kind."""
        control = self.publisher.control
        by = control.by(OWNER)
        command = {
            "command_id": "c1", "model": "credit", "command": "retrain", "version": None, "follows": None,
            "by": "ada", "reason": "because", "issued_at": NOW,
        }  # fmt: skip
        signed = sign_command(by.home, command, MemoryKey(OWNER).key())
        run = Run(
            run_id=run_id("credit", NOW), model="credit", cut=NOW,
            triggers=(OpenTrigger("drift", "a1", NOW, NOW, "it drifts", 1),), changed_at=NOW, window_start=NOW - 9,
            window_end=NOW, labels=9, contract_digest=self.contract.digest, champion=1, offsets=((0, 5),),
            state="failed",
        )  # fmt: skip
        return [
            control.record("Command", signed, b"credit"),
            control.record("Alert", alert(1, 3, at=NOW)),
            control.record("TrainingRun", training_run(run)),
        ]

    # Services ---

    def _start(self, name: str) -> Process:
        backend, clock = self.log.backend(name), MemoryClock(self.log, name)
        if name == "sink":
            client: Any = EncodingClient(self.tables, self.log, name, self.rng, 0.0)
            rows = RowReader(self.publisher.control.by("sink"), client, lambda: all_contracts(backend))
            return Sink(backend, rows, client, group="sink", clock=clock)
        return ExactlyOnceRunner(
            backend,
            self._processor(name),
            service=name,
            group=name,
            transactional_id=name,
            clock=clock,
            quarantine=quarantine,
            co_partitioned=name in ("joiner", "rollout"),
            max_batch=50,
        )

    def restart(self, name: str) -> None:
        """The service begins again, by what is in the log."""
        self.processes[name].close()
        self.processes[name] = self._start(name)

    def _processor(self, name: str) -> Processor:
        by = self.publisher.control.by(name)
        if name in ("scorer", "shadow-scorer"):
            role: Any = "champion" if name == "scorer" else "shadow"
            return ScoringProcessor(role, by, self.publisher.open, Inline(), self._verify)
        if name == "joiner":
            return JoiningProcessor(
                by,
                lambda lane, number: MemoryKeyValueStore(),
                self._partitions,
                lambda: self._control((lanes.CONTRACTS,)),
            )
        if name == "rollout":
            return RolloutProcessor(
                by,
                self._verify,
                lambda record, contract, newer_than: self.publisher.open(record, contract),
                refuse_command,
            )
        kind: Windows
        catch_up = self._catch_up(lambda: kind.control_topics())
        if name == "drift":
            kind = DriftWindows(by, self._reference, self._verify, catch_up)
        else:
            kind = PerformanceWindows(by, self._verify, catch_up)
        return WindowedProcessor(kind, by.codec, self._partitions, keep_after=20)

    def _catch_up(self, topics: Callable[[], Sequence[str]]) -> Callable[[], Sequence[Message]]:
        return lambda: self._control(topics())

    def _control(self, topics: Sequence[str]) -> list[Message]:
        return [message for topic in topics for message in self.log.messages(topic)]

    def _partitions(self, topic: str) -> int:
        return self.log.topics()[topic]

    def _verify(self, record: Mapping[str, Any]) -> Manifest:
        opened = self.publisher.models.get((record["model"], record["version"]))
        if opened is None or isinstance(opened, Exception) or opened.digest != record["digest"]:
            raise PackageRefused("signature", "by nobody")
        return opened.manifest

    def _reference(self, record: Mapping[str, Any]) -> Any:
        return self._verify(record), drifting.reference(self.contract, self.references)

    def revision(self, topic: str) -> int | None:
        """The revision of the model's contract or rollout, or the lane's clock, that is in force."""
        if topic not in self._revisions:
            return None
        offset, revision = self._revisions[topic]
        messages = self.log.messages(topic)
        for message in messages[offset:]:
            record = self.publisher.control.by("owner").judge(message).record
            ours = record is not None and "credit" in (record.get("model"), record.get("lane"))
            if ours and record["follows"] == revision:
                revision += 1
        self._revisions[topic] = len(messages), revision
        return revision

    def trainer(self) -> None:
        """What the trainer would decide by what is on its topics. Raises whatever would end it."""
        events, state = Events(self.publisher.control.by("trainer"), refuse_command), State()
        for message in self._control(TOPICS):
            event = events.of(message)
            if event is not None:
                state, _ = decide(state, event)
        decide(state, CaughtUp())
        for run in state.runs:
            training_run(run)

    # What happens ---

    def write(self, record: Record) -> None:
        self.log.append(record.topic, record.value, record.key, record.headers, record.partition)

    def ask(self, count: int) -> list[str]:
        """Honest requests, and for each its label some time later; their ids."""
        names = []
        for row in drifting.draw(count, np.random.default_rng(self.asked)):
            self.asked += 1
            name, key, time = f"r{self.asked}", f"l{self.asked % 7}", self.log.now_ms
            fields = {name: row[name] for name in (*drifting.FEATURES, "region")}
            request = {"request_id": name, "loan_id": key, "applied_at": time, "note": None, **fields}
            self._send(LANE.requests, request, key)
            names.append(name)
        return names

    def label(self, names: Sequence[str]) -> None:
        for name in names:
            key = f"l{int(name[1:]) % 7}"
            label = {"request_id": name, "loan_id": key, "defaulted": self.rng.random() < 0.5}
            self._send(LANE.labels, label, self.rng.choice((key, "elsewhere", None)))

    def act(self, names: Sequence[str]) -> None:
        for name in names:
            action = {"request_id": name, "loan_id": f"l{int(name[1:]) % 7}", "action": "approve"}
            self._send(LANE.actions, action, self.rng.choice(("elsewhere", None)))

    def _send(self, topic: str, record: dict[str, Any], key: str | None) -> None:
        value = self.publisher.codec.encode(self.ids[topic], record)
        self.write(Record(topic, value, None if key is None else key.encode()))

    def run(self, turns: int) -> None:
        """Every service that lives takes so many turns; what ends one is noted."""
        for _ in range(turns):
            for name, process in self.processes.items():
                if name in self.ended:
                    continue
                try:
                    process.step()
                except Exception as error:
                    self.ended[name] = error
