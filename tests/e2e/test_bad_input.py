"""Everything that may come in over the broker, bad and merely strange, between good requests of the same partition:
each is answered or refused by name, nothing else is lost, and `verify` agrees."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import signal
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import fastavro
import numpy as np
import onnx
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from onnx import TensorProto, helper
from tests.support.project import Project
from tests.support.waiting import until

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection, connect
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.dead_letters import DeadLetterInfo
from tailrace.streaming.records import RecordRef

CONTRACT = """
model: gate
owner: {team: tests}
features:
  level: {type: integer}
  amount: {type: number, min: 0, max: 1000}
  kind: {categories: [a, b]}
context:
  note: {type: string}
target: {name: bad, type: boolean}
rules:
  - {name: cheap-b, require: "kind <> 'b' OR amount < 500"}
policy:
  - {when: "score < 0.5", do: pass, name: low}
  - {do: stop}
service_levels: {answered: 99.9%}
"""
GOOD: dict[str, Any] = {"level": 3, "amount": 10.0, "kind": "a"}
LIMIT = 1024 * 1024
TABLE = np.arange(10) / 10  # score by level; another level makes the model raise


@dataclass(frozen=True)
class Refused:
    code: str
    field: str | None = None


@dataclass(frozen=True)
class Case:
    """What is sent, and what is to come of it: a refusal, or fields of the prediction."""

    value: bytes | None
    expected: Refused | Mapping[str, Any] = field(default_factory=dict)
    key: bytes | None = b"k"
    headers: list[tuple[str, bytes]] = field(default_factory=list)


class Writer:
    """Writes requests as a careless producer would: fastavro alone, nothing checked."""

    def __init__(self, connection: Connection) -> None:
        self.registry = RegistryClient(connection.registry, connection.registry_auth)
        latest = self.registry.latest("gate.requests-value")
        assert latest is not None
        self.id, self.schema = latest.id, latest.schema

    def avro(self, schema_id: int | None = None, schema: Any = None, **changed: Any) -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, fastavro.parse_schema(schema or self.schema), GOOD | changed)
        return struct.pack(">bI", 0, self.id if schema_id is None else schema_id) + body.getvalue()

    def variant(self, subject: str, *, drop: str = "", add: str = "") -> tuple[int, dict[str, Any]]:
        """The request schema of a producer that is behind, or ahead of, the contract."""
        fields = [f for f in self.schema["fields"] if f["name"] != drop]  # type: ignore[index, call-overload]
        if add:
            fields.append({"name": add, "type": ["null", "string"], "default": None})
        schema = {**self.schema, "fields": fields}  # type: ignore[dict-item]
        return self.registry.register(subject, schema), schema


def _json(**changed: Any) -> bytes:
    return json.dumps(GOOD | changed).encode()


def _cases(write: Writer) -> dict[str, Case]:
    good = write.avro()
    behind = write.variant("gate-behind", drop="kind")
    ahead = write.variant("gate-ahead", add="colour")
    label = write.registry.latest("gate.labels-value")
    assert label is not None
    year = 365 * 86_400_000
    under = LIMIT - 400
    return {
        "good": Case(good, {"score": 0.3, "action": "pass", "rule": "low"}),
        "good JSON": Case(_json(level=7), {"score": 0.7, "action": "stop"}),
        "no key": Case(good, {"score": 0.3}, key=None),
        "key of its own": Case(write.avro(request_id="mine"), {"request_id": "mine", "key": "mine"}),
        "key that is no text": Case(good, {"score": 0.3}, key=b"\xff\xfe"),
        "no request id": Case(write.avro(request_id=None), {"request_id": "COORDINATES"}),
        "empty request id": Case(write.avro(request_id=""), {"request_id": "COORDINATES"}),
        "a duplicate": Case(write.avro(request_id="twice"), {"request_id": "twice"}),
        "its duplicate": Case(write.avro(request_id="twice"), {"request_id": "twice"}),
        "text of all kinds": Case(write.avro(note="\0 \U0001f600 ñ ' \" \\"), {"score": 0.3}),
        "missing context": Case(write.avro(note=None), {"score": 0.3}),
        "an extra field": Case(write.avro(*ahead, colour="red"), {"score": 0.3}),
        "year 1": Case(write.avro(event_time=-1968 * year), {"event_time": -1968 * year}),
        "as early as can be": Case(write.avro(event_time=-(2**63)), Refused("out-of-range", "event_time")),
        "year 1900, JSON": Case(_json(event_time="1900-01-01T00:00:00Z"), {"score": 0.3}),
        "year 2100": Case(write.avro(event_time=130 * year), Refused("event-time-ahead", "event_time")),
        "seconds": Case(write.avro(event_time=1_767_225_600), Refused("event-time-in-seconds", "event_time")),
        "year 9999, JSON": Case(
            _json(event_time="9999-12-31T23:59:59Z"), Refused("event-time-ahead", "event_time")
        ),
        "as late as can be": Case(
            write.avro(event_time=2**63 - 1), Refused("event-time-ahead", "event_time")
        ),
        "unknown schema id": Case(struct.pack(">bI", 0, 2_000_000_000) + good[5:], Refused("unknown-schema")),
        "truncated": Case(good[:-3], Refused("truncated")),
        "no more than a head": Case(good[:5], Refused("truncated")),
        "less than a head": Case(good[:3], Refused("truncated")),
        "bytes too many": Case(good + b"xyz", Refused("trailing-bytes")),
        "wrong magic": Case(b"\x01" + good[1:], Refused("wrong-magic")),
        "text": Case(b"level=3", Refused("wrong-magic")),
        "a JSON array": Case(b"[1, 2]", Refused("wrong-magic")),
        "no bytes": Case(b"", Refused("empty")),
        "no value": Case(None, Refused("empty")),
        "a mark without a time": Case(None, Refused("empty"), headers=[("tailrace-mark", b"soon")]),
        "text that is no UTF-8": Case(
            write.avro(note="xyzzy").replace(b"xyzzy", b"xy\xffzy"), Refused("ANY")
        ),
        "a label among requests": Case(struct.pack(">bI", 0, label.id) + b"\0" * 12, Refused("ANY")),
        "half a JSON": Case(b'{"level": 3', Refused("not-json")),
        "JSON, a name twice": Case(b'{"level": 3, "level": 4}', Refused("duplicate-field", "level")),
        "JSON with NaN": Case(b'{"level": 3, "amount": NaN, "kind": "a"}', Refused("not-finite")),
        "JSON beyond numbers": Case(
            b'{"level": 3, "amount": 1e999, "kind": "a"}', Refused("out-of-range", "amount")
        ),
        "JSON that is no UTF-8": Case(b'{"note": "\xff"}', Refused("not-unicode")),
        "JSON, unknown field": Case(_json(colour="red"), Refused("unknown-field", "colour")),
        "JSON, text for a number": Case(_json(amount="10"), Refused("wrong-type", "amount")),
        "JSON, fraction for an integer": Case(_json(level=3.5), Refused("wrong-type", "level")),
        "JSON, bad time": Case(_json(event_time="yesterday"), Refused("wrong-type", "event_time")),
        "JSON, nested deep": Case(b'{"note": ' + b"[" * 5000, Refused("not-json")),
        "unknown model": Case(write.avro(model="nobody"), Refused("unknown-model", "model")),
        "unknown model, JSON": Case(_json(model="nobody"), Refused("unknown-model", "model")),
        "missing field": Case(write.avro(*behind), Refused("missing", "kind")),
        "null field": Case(write.avro(amount=None), Refused("missing", "amount")),
        "null field, JSON": Case(_json(level=None), Refused("missing", "level")),
        "NaN": Case(write.avro(amount=float("nan")), Refused("not-finite", "amount")),
        "infinity": Case(write.avro(amount=float("-inf")), Refused("not-finite", "amount")),
        "below the range": Case(write.avro(amount=-0.5), Refused("out-of-range", "amount")),
        "above the range, JSON": Case(_json(amount=1001), Refused("out-of-range", "amount")),
        "unseen category": Case(write.avro(kind="c"), Refused("unseen-category", "kind")),
        "a broken rule": Case(write.avro(kind="b", amount=900.0), Refused("rule", "cheap-b")),
        "the model raises": Case(write.avro(level=99), Refused("model-failed")),
        "the model raises, JSON": Case(_json(level=-99), Refused("model-failed")),
        "just under the limit": Case(write.avro(note="x" * under), {"score": 0.3}),
        "just under the limit and bad": Case(
            write.avro(note="x" * under, kind="c"), Refused("unseen-category", "kind")
        ),
        "just under the limit, JSON and bad": Case(
            b'{"a": "' + b"x" * under + b'"}', Refused("unknown-field", "a")
        ),
    }


class Outcome:
    """What came of each case, by name."""

    def __init__(
        self, connection: Connection, cases: Mapping[str, Case], sent: Mapping[str, RecordRef]
    ) -> None:
        self.cases, self.sent = cases, sent
        codec = Codec(RegistryClient(connection.registry, connection.registry_auth))
        self.events: dict[RecordRef, dict[str, Any]] = {}
        self.letters: dict[RecordRef, tuple[DeadLetterInfo, bytes | None]] = {}
        for message in read_all(connection, ["gate.predictions", "gate.dead-letters"]):
            if message.topic() == "gate.dead-letters":
                letter = dead_letters.parse(message)
                assert letter.source not in self.letters
                self.letters[letter.source] = letter, message.key()
            elif message.value() is not None:
                event = codec.decode(message.value()).record
                source = RecordRef(**event["source"])
                assert source not in self.events
                self.events[source] = event


def _model() -> bytes:
    """An ONNX model that looks the score up by level, and raises where the table has none."""
    table = helper.make_tensor("table", TensorProto.DOUBLE, [len(TABLE)], TABLE)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["level"], ["at"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "at"], ["probability"]),
        ],
        "gate",
        [helper.make_tensor_value_info("level", TensorProto.DOUBLE, [None, 1])],
        [helper.make_tensor_value_info("probability", TensorProto.DOUBLE, [None, 1])],
        [table],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()


def _in_service(project: Project) -> None:
    contract = project.path / "contracts" / "models" / "gate.yaml"
    contract.parent.mkdir(parents=True, exist_ok=True)
    contract.write_text(CONTRACT)
    (project.path / "gate.onnx").write_bytes(_model())
    lines = ["event_time,level,amount,kind,bad"]
    for row in range(400):
        level = row * 7 % 10
        lines.append(f"{1_700_000_000 + row},{level},{row % 100},{'ab'[row % 2]},{int(row % 10 < level)}")
    (project.path / "gate.csv").write_text("\n".join(lines) + "\n")
    project.run("apply", str(contract))
    project.run("publish", "gate.onnx", "--model", "gate", "--holdout", "gate.csv")
    project.wait_for_champion("gate", 1)


def _send(connection: Connection, cases: Mapping[str, Case], good: bytes) -> dict[str, RecordRef]:
    """Each case between good requests of its partition; the cases' references."""
    producer = Producer({**connection.kafka, "message.max.bytes": 8 * LIMIT})
    sent: dict[str, RecordRef] = {}

    def delivered(name: str, error: Any, message: Any) -> None:
        assert error is None, f"{name}: {error}"
        sent[name] = RecordRef.of(message)

    for partition, (name, case) in zip(itertools.cycle(range(3)), cases.items(), strict=False):
        for label, value, key, headers in (
            (f"before {name}", good, b"k", []),
            (name, case.value, case.key, case.headers),
            (f"after {name}", good, b"k", []),
        ):
            producer.produce(
                "gate.requests",
                value,
                key,
                partition=partition,
                headers=headers,
                on_delivery=lambda e, m, label=label: delivered(label, e, m),
            )
            producer.poll(0)
    assert producer.flush(30) == 0
    return sent


def _final_report(project: Project) -> dict[str, Any]:
    """What `verify` says once nothing is in flight."""

    def account() -> dict[str, Any] | None:
        report: dict[str, Any] = project.json("verify", "--model", "gate", "--deep", check=False)
        return report if report["in_flight"] == 0 else None

    return dict(until(account, "nothing is in flight"))


@pytest.fixture(scope="module")
def connection(project: Project) -> Connection:
    return connect({}, project.home)


@pytest.fixture(scope="module")
def outcome(project: Project, connection: Connection) -> Outcome:
    _in_service(project)
    write = Writer(connection)
    cases = _cases(write)
    sent = _send(connection, cases, write.avro())
    report = _final_report(project)
    assert report["ok"], report["problems"]
    assert report["requests"] == len(sent) == 3 * len(cases)
    assert report["predictions"] + report["dead_letters"] == len(sent)
    return Outcome(connection, cases, sent)


def test_each_case_comes_to_what_it_should(outcome: Outcome) -> None:
    differing: dict[str, Any] = {}
    for name, case in outcome.cases.items():
        source = outcome.sent[name]
        event, (letter, key) = outcome.events.get(source), outcome.letters.get(source, (None, None))
        if isinstance(case.expected, Refused):
            actual = letter and Refused(letter.code, letter.field)
            ok = letter is not None if case.expected.code == "ANY" else actual == case.expected
            if not ok or key != case.key:
                differing[name] = actual or event
        else:
            expected = {k: str(source) if v == "COORDINATES" else v for k, v in case.expected.items()}
            actual = event and {k: event[k] for k in expected}
            if actual != expected:
                differing[name] = letter or actual
    assert differing == {}


def test_the_good_requests_beside_them_are_answered(outcome: Outcome) -> None:
    around = [f"{side} {name}" for name in outcome.cases for side in ("before", "after")]
    missing = [name for name in around if outcome.sent[name] not in outcome.events]
    assert missing == []


def test_dead_letters_carry_the_original_bytes(outcome: Outcome) -> None:
    for name, case in outcome.cases.items():
        if not isinstance(case.expected, Refused):
            continue
        letter, _ = outcome.letters[outcome.sent[name]]
        assert letter.reason, name
        if case.value is not None and len(case.value) > dead_letters.VALUE_LIMIT:
            assert letter.value == case.value[: dead_letters.VALUE_LIMIT], name
            assert letter.sha256 == hashlib.sha256(case.value).hexdigest(), name
        else:
            assert (letter.value, letter.sha256) == (case.value, None), name
        assert letter.headers == case.headers, name


def test_a_message_over_the_limit_is_the_brokers_to_refuse(connection: Connection, outcome: Outcome) -> None:
    producer = Producer({**connection.kafka, "message.max.bytes": 8 * LIMIT})
    refused: list[KafkaError] = []
    try:
        producer.produce(
            "gate.requests", b"x" * (2 * LIMIT), on_delivery=lambda error, _: refused.append(error)
        )
        producer.flush(30)
    except KafkaException as error:
        refused.append(error.args[0])
    assert [error.code() for error in refused] == [KafkaError.MSG_SIZE_TOO_LARGE]


def test_while_the_registry_is_away_requests_wait(
    project: Project, connection: Connection, outcome: Outcome
) -> None:
    """An unknown schema id can only be judged by the registry: what comes with it waits, and nothing is refused
    that should not be."""
    write = Writer(connection)
    schema_id, schema = write.variant("gate-while-away", add="shape")
    registry = int(project.status()["registry"]["pid"])
    values = {"good": write.avro(), "new schema": write.avro(schema_id, schema, shape="round", level=8)}
    before = len(outcome.letters)
    os.kill(registry, signal.SIGSTOP)
    try:
        sent = _send(connection, {name: Case(value) for name, value in values.items()}, write.avro())
        time.sleep(2)  # long enough to do the wrong thing
    finally:
        os.kill(registry, signal.SIGCONT)
    report = _final_report(project)
    assert report["ok"], report["problems"]
    now = Outcome(connection, {}, {})
    assert len(now.letters) == before
    assert now.events[sent["new schema"]]["score"] == 0.8
    assert {sent[name] for name in sent} <= set(now.events)


def test_too_many_dead_letters_are_told_by_an_alert_that_people_can_read_and_query(
    project: Project, connection: Connection, outcome: Outcome
) -> None:
    """A partition is judged by every 1,000 requests; of those before this test more were bad."""
    good, partition = Writer(connection).avro(), 1
    producer = Producer({**connection.kafka})
    for _ in range(1_000):
        producer.produce("gate.requests", good, b"k", partition=partition)
    assert producer.flush(30) == 0
    (alert,) = until(lambda: _alerts(connection, "dead-letter-share"))
    cases = [name for name, source in outcome.sent.items() if source.partition == partition]
    dead = [name for name in cases if outcome.sent[name] in outcome.letters]
    assert (alert["state"], alert["severity"], alert["model"]) == ("raised", "warning", "gate")
    assert alert["detail"]["found"] == str(len(dead))
    first = min(outcome.sent[name].offset for name in cases)  # watermark records may be before it
    assert alert["detail"]["first"] == f"gate.requests/{partition}/{first}"
    assert (alert["source"]["topic"], alert["source"]["partition"]) == ("gate.requests", partition)
    sql = "SELECT alert_id, state, severity, summary, detail['found'] AS found FROM alerts "
    rows = until(lambda: project.json("query", sql + "WHERE kind = 'dead-letter-share'"))
    stored = {name: alert[name] for name in ("alert_id", "state", "severity", "summary")}
    assert rows == [stored | {"found": str(len(dead))}]


def _alerts(connection: Connection, kind: str) -> list[dict[str, Any]]:
    """The alerts of a kind, read with nothing but the registered schema."""
    values = [message.value() for message in read_all(connection, ["tailrace.alerts"])]
    latest = RegistryClient(connection.registry, connection.registry_auth).latest("tailrace.alerts-value")
    if latest is None:  # registered by whoever writes the first one
        return []
    assert all(value[:5] == struct.pack(">bI", 0, latest.id) for value in values)
    schema = fastavro.parse_schema(latest.schema)  # type: ignore[arg-type]
    alerts: list[Any] = [fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None) for value in values]
    return [alert for alert in alerts if alert["kind"] == kind]
