"""A scorer's surroundings in memory: contracts, versions and rollouts as records, requests as messages.

The models are real `LoadedModel`s around a formula that a test can compute by itself.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import fastavro

from tailrace.avro.codec import Codec
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import request_schema, subject
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel
from tailrace.scorer.processor import ScoringProcessor
from tailrace.scorer.versions import Role
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.inline_executor import Inline
from tailrace.streaming.processor import Output, Processor
from tailrace.streaming.records import DeadLetter, PlainMessage, Record, TopicPartition
from tailrace.testing.control_records import contract_record, manifest_record
from tailrace.testing.formula_model import formula_model
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control

NOW = 1_700_000_000_000

CONTRACT = """
model: credit
owner: {team: risk}
key: {name: loan_id, type: string}
event_time: {name: applied_at, skew: 5min}
features:
  income: {type: number, min: 0, max: 1000000, missing: impute}
  debt_ratio: {type: number, min: 0}
  age: {type: integer, min: 18, max: 120, missing: pass}
  purpose: {categories: [car, home, other], unseen: other}
  grade: {categories: [a, b], missing: impute}
context:
  amount: {type: number, min: 0}
  region: {categories: [north, south]}
  vip: {type: boolean}
  note: {type: string}
rules:
  - {name: debt-needs-income, require: "debt_ratio = 0 OR income > 0"}
target: {name: defaulted, type: boolean}
policy:
  - {when: "uncertain OR guarded", do: person}
  - {when: "score < 0.3 AND amount < 50000", do: approve, name: small-and-safe}
  - {when: "vip AND predicted_class = 'false'", do: approve}
  - {when: "score < 0.6", do: refer}
  - {do: refuse}
"""

REQUEST: dict[str, Any] = {
    "request_id": "r1",
    "loan_id": "l1",
    "applied_at": NOW - 1000,
    "income": 40_000.0,
    "debt_ratio": 0.5,
    "age": 40,
    "purpose": "car",
    "grade": "b",
    "amount": 1000.0,
    "region": "north",
    "vip": False,
    "note": None,
}


class Later(Inline):
    """Opens packages when told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        for future, call in self.waiting:
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
        self.waiting.clear()


class Publisher:
    """Makes the records of control topics, and the models that the manifests stand for."""

    def __init__(self, registry: MemoryRegistry | None = None) -> None:
        self.registry = registry or MemoryRegistry()
        self.control = Control(self.registry)
        self.codec = Codec(self.registry)
        self.contracts: dict[str, list[ModelContract]] = {}
        self.models: dict[tuple[str, int], LoadedModel | Exception] = {}
        self.revisions: dict[str, int] = {}

    def contract(self, text: str | ModelContract = CONTRACT, follows: int | None = None) -> Record:
        contract = load_contract(text) if isinstance(text, str) else text
        known = self.contracts.setdefault(contract.model, [])
        after = len(known) if follows is None else follows
        if follows is None:
            known.append(contract)
        record = contract_record(contract, after, at=NOW)
        return self.control.record("Contract", record, contract.model.encode())

    def manifest(
        self, version: int, opened: LoadedModel | Exception | None = None, model: str = "credit"
    ) -> Record:
        if opened is None:
            opened = formula_model(self.contracts[model][-1], version)
        self.models[model, version] = opened
        digest = opened.digest if isinstance(opened, LoadedModel) else "bad"
        record = manifest_record(model, version, digest, at=NOW)
        return self.control.record("ModelManifest", record, f"{model}/{version}".encode())

    def rollout(self, model: str = "credit", follows: int | None = None, **state: Any) -> Record:
        after = self.revisions.get(model, 0) if follows is None else follows
        if follows is None:
            self.revisions[model] = after + 1
        record = {
            "model": model,
            "revision": after + 1,
            "follows": after,
            "step": "promote",
            "reason": "test",
            "by": "test",
            "source": {"topic": lanes.COMMANDS, "partition": 0, "offset": 0},
        } | state
        return self.control.record("Rollout", record, model.encode())

    def open(self, record: Mapping[str, Any], contract: ModelContract) -> LoadedModel:
        opened = self.models[record["model"], record["version"]]
        if isinstance(opened, Exception):
            raise opened
        return opened

    def request_value(self, request: Mapping[str, Any], contract: ModelContract | None = None) -> bytes:
        contract = contract or self.contracts["credit"][-1]
        topic = Lane(contract.lane).requests
        schema_id = self.registry.register(
            subject(topic, contract.model, contract.lane), request_schema(contract)
        )
        return self.codec.encode(schema_id, dict(request))

    def logic(self, role: Role = "champion", executor: Executor | None = None) -> ScoringProcessor:
        return ScoringProcessor(
            role,
            self.control.by("scorer" if role == "champion" else "shadow-scorer"),
            self.open,
            executor or Inline(),
        )


REFUSED = PackageRefused("golden", "off by one")


class Bench:
    """Drives a logic by hand: a message's offset is its place in its partition."""

    def __init__(
        self, logic: Processor, publisher: Publisher, assigned: Mapping[int, str] | None = None
    ) -> None:
        self.logic = logic
        self.publisher = publisher
        self._ends: dict[tuple[str, int], int] = {}
        self._clock = MemoryClock(MemoryLog(start_ms=NOW))
        metadata = {0: ""} if assigned is None else assigned
        self._assigned = {
            TopicPartition("credit.requests", p): Committed(0, facts) for p, facts in metadata.items()
        }
        logic.assigned(self._assigned)

    def message(self, record: Record, timestamp_ms: int = NOW) -> PlainMessage:
        place = record.topic, record.partition or 0
        offset = self._ends.get(place, 0)
        self._ends[place] = offset + 1
        return PlainMessage(*place, offset, record.value, record.key, record.headers, timestamp_ms)

    def control(self, *records: Record) -> None:
        self.logic.control([self.message(record) for record in records])

    def process(self, messages: Sequence[PlainMessage]) -> Output:
        output = self.logic.process(messages, self._clock)
        output.on_committed()
        return output

    def score(self, *values: bytes | None) -> Output:
        """Scores these values as requests of partition 0."""
        return self.process([self.message(Record("credit.requests", value)) for value in values])

    def requests(self, *requests: Mapping[str, Any]) -> Output:
        return self.score(*(self.publisher.request_value(request) for request in requests))

    def events(self, output: Output, topic: str = "credit.predictions") -> list[dict[str, Any]]:
        """The predictions, read by the reference."""
        return [
            self.publisher.codec.decode(record.value).record
            for record in output.records
            if record.topic == topic and record.value is not None
        ]

    def alerts(self, output: Output) -> list[dict[str, Any]]:
        return [
            self.publisher.control.decode("Alert", record.value)
            for record in output.records
            if record.topic == lanes.ALERTS
        ]


def serving(role: Role = "champion", **state: Any) -> Bench:
    """A scorer with the contract above and version 1 in service."""
    publisher = Publisher()
    bench = Bench(publisher.logic(role), publisher)
    bench.control(
        publisher.contract(), publisher.manifest(1), publisher.rollout(**(state or {"champion": 1}))
    )
    return bench


def codes(letters: Sequence[DeadLetter]) -> list[tuple[str, str | None]]:
    return [(letter.code, letter.field) for letter in letters]


def avro(schema: dict[str, Any], record: Mapping[str, Any]) -> bytes:
    """A body by the reference, whatever logical types say."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), dict(record))
    return buffer.getvalue()


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
