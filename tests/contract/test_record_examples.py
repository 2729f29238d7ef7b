"""Every example goes through every program that writes or reads its topic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.support.examples import CONTRACT, SCHEMAS, Example, examples
from tests.support.scoring import Bench, Publisher, codes

from tailrace.avro.codec import Codec
from tailrace.client import records
from tailrace.client.facts import ModelFacts
from tailrace.contracts.records.control_codec import CONTROL_RECORDS
from tailrace.contracts.records.json_input import JsonInput, Kind
from tailrace.contracts.records.schemas import subject
from tailrace.control.registration import register_schemas
from tailrace.errors import BadRecord
from tailrace.sink.rows import RowReader
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.kafka.topics import topic_files, topics_read_by
from tailrace.streaming.records import DeadLetter, PlainMessage, Record
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control

ALL = examples()
NOW = 1_767_261_601_000  # a second after most of the requests happened
JSON_KINDS: dict[str, Kind] = {
    "credit.requests": "requests",
    "credit.labels": "labels",
    "credit.actions": "actions",
}
CONTROL_NAMES = {topic: name for name, topic in CONTROL_RECORDS.items()}


def chosen(**wanted: Any) -> Any:
    found = [e for e in ALL if all(getattr(e, name) == value for name, value in wanted.items())]
    assert found
    return pytest.mark.parametrize("example", found, ids=lambda e: e.name)


class World:
    """A registry with the schemas of the credit lane and of the control topics, and who uses it."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        ids = register_schemas(self.registry, CONTRACT)
        control = {f"{topic}-value": SCHEMAS[topic] for topic in CONTROL_RECORDS.values()}
        self.ids = ids | {name: self.registry.register(name, schema) for name, schema in control.items()}
        self.codec = Codec(self.registry)
        self.control = Control(self.registry)

    def id_of(self, topic: str) -> int:
        return self.ids[subject(topic, CONTRACT.model, CONTRACT.lane)] if topic in SCHEMAS else 1

    def values(self, example: Example) -> list[bytes | None]:
        if example.of is not None:
            other = next(e for e in ALL if e.ok and e.topic == CONTROL_RECORDS[example.of])
            return [other.avro(self.id_of(other.topic))]
        return example.values(self.id_of(example.topic))

    def decode(self, topic: str, value: bytes | None) -> dict[str, Any]:
        """What whoever reads the topic makes of it."""
        if topic in CONTROL_NAMES:
            return self.control.decode(CONTROL_NAMES[topic], value)
        if topic in JSON_KINDS and value is not None and value[:1] == b"{":
            return JsonInput(CONTRACT, JSON_KINDS[topic]).parse(value)
        return self.codec.decode(value, SCHEMAS[topic]).record


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def message(example: Example, value: bytes | None) -> PlainMessage:
    headers = [(name, text.encode()) for name, text in example.headers.items()]
    return PlainMessage(example.topic, 0, 7, value, b"L-17", headers, NOW)


def test_every_topic_has_good_and_bad_examples() -> None:
    # Packages' bytes, what the joiner passes on to itself, and what windows remember: nobody else reads them.
    without = {"tailrace.model-chunks", "credit.rekeyed", "tailrace.window-state"}
    topics = {topic.replace("LANE.", "credit.") for topic in topic_files()} - without
    assert {e.topic for e in ALL if e.ok} == {e.topic for e in ALL if not e.ok} == topics


@pytest.mark.parametrize("example", [e for e in ALL if e.ok and e.record], ids=lambda e: e.name)
def test_good_records_are_written_and_read_as_they_are(world: World, example: Example) -> None:
    assert example.record is not None
    schema_id = world.id_of(example.topic)
    assert world.codec.encode(schema_id, example.record) == example.avro(schema_id)
    for value in world.values(example):
        assert world.decode(example.topic, value) == example.record
    if example.topic in CONTROL_NAMES:
        written = world.control.encode(CONTROL_NAMES[example.topic], example.record)
        assert written == example.avro(schema_id)
    if example.topic in JSON_KINDS:
        assert world.decode(example.topic, json.dumps(example.record).encode()) == example.record


@pytest.mark.parametrize("example", [e for e in ALL if not e.ok and e.topic in SCHEMAS], ids=lambda e: e.name)
def test_bad_ones_are_refused_by_whoever_reads_the_topic(world: World, example: Example) -> None:
    for value in world.values(example):
        if example.by_contract:
            world.decode(example.topic, value)  # the format is fine
        else:
            with pytest.raises(BadRecord) as caught:
                world.decode(example.topic, value)
            assert (caught.value.code, caught.value.field) == (example.code, example.field)


@chosen(topic="credit.requests")
def test_the_scorer_answers_the_good_and_dead_letters_the_bad(example: Example) -> None:
    publisher = Publisher(MemoryRegistry())
    bench = Bench(publisher.logic(), publisher)
    bench.control(publisher.contract(CONTRACT), publisher.manifest(1), publisher.rollout(champion=1))
    schema_id = publisher.registry.register("credit.requests-value", SCHEMAS["credit.requests"])
    for value in example.values(schema_id):
        output = bench.process([bench.message(Record(example.topic, value, b"L-17"), NOW)])
        written = [record for record in output.records if record.topic == "credit.predictions"]
        answers = [record for record in written if record.value is not None]  # watermark records aside
        if example.ok:
            assert codes(output.dead_letters) == []
            assert [publisher.codec.decode(r.value).record["request"] for r in answers] == [example.record]
        else:
            assert answers == []
            assert codes(output.dead_letters) == [(example.code, example.field)]
            assert_carried(output.dead_letters[0], value)


def assert_carried(letter: DeadLetter, value: bytes | None) -> None:
    record = dead_letters.to_record(letter, "scorer")
    sent = PlainMessage(record.topic, 0, 0, record.value, record.key, record.headers, NOW)
    info = dead_letters.parse(sent)
    assert (info.value, info.key, info.code, info.field) == (value, b"L-17", letter.code, letter.field)


class Tables:
    """Tables that are as they are asked to be."""

    def columns(self, table: str) -> dict[str, str]:
        return {}

    def command(self, sql: str) -> None: ...

    def insert(
        self, table: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], token: str
    ) -> None:
        raise AssertionError


STORED = {topic.replace("LANE.", "credit.") for topic in topics_read_by("sink")}


@pytest.mark.parametrize("example", [e for e in ALL if e.topic in STORED], ids=lambda e: e.name)
def test_the_sink_makes_a_row_of_whatever_can_be_read(world: World, example: Example) -> None:
    reader = RowReader(world.control.by("sink"), Tables())
    applied = {
        "model": CONTRACT.model, "revision": 1, "follows": 0, "digest": CONTRACT.digest, "source_text": "",
        "resolved": CONTRACT.resolved_json, "applied_by": "ada", "applied_at": 1,
    }  # fmt: skip
    record = world.control.record("Contract", applied)
    reader.control([PlainMessage(record.topic, 0, 0, record.value, record.key, record.headers)])
    for value in world.values(example):
        if example.ok or (example.by_contract and example.code != "unknown-model"):
            row = reader.read(message(example, value))
            assert row is not None
            if example.record is not None:
                assert dict(row.record) == example.record or "nan" in str(example.record)
        elif not example.by_contract:
            with pytest.raises(BadRecord) as caught:
                reader.read(message(example, value))
            assert caught.value.code == example.code


@chosen(topic="credit.dead-letters", ok=True)
def test_dead_letters_say_where_they_come_from(example: Example) -> None:
    info = dead_letters.parse(message(example, example.raw_bytes(1)))
    assert info.source.topic == "credit.requests"
    assert info.service == example.headers["tailrace-service"]
    assert info.headers == [
        (n, t.encode()) for n, t in example.headers.items() if n not in dead_letters.HEADERS
    ]


FACTS = ModelFacts.from_resolved(json.loads(CONTRACT.resolved_json))


@chosen(topic="credit.requests", ok=True)
def test_the_client_writes_the_same_request(world: World, example: Example) -> None:
    assert example.record is not None
    row = {name: value for name, value in example.record.items() if value is not None}
    draft = records.request(FACTS, {"loan_id": "L-17", **row})
    given = {"loan_id": "L-17", "model": "credit", "request_id": draft.request_id, **row}
    written = world.codec.encode(world.id_of(example.topic), draft.record)
    empty = dict.fromkeys(example.record)
    assert world.decode(example.topic, written) == empty | given


@chosen(topic="credit.labels", ok=True)
def test_the_client_writes_the_same_label(world: World, example: Example) -> None:
    label = example.record
    assert label is not None
    draft = records.label(
        FACTS,
        label["defaulted"],
        label["request_id"],
        label["loan_id"],
        label["applied_at"],
        label["labelled_by"],
    )
    written = world.codec.encode(world.id_of(example.topic), draft.record)
    assert world.decode(example.topic, written) == label | {"model": "credit"}


@chosen(topic="credit.actions", ok=True)
def test_the_client_writes_the_same_action(world: World, example: Example) -> None:
    action = example.record
    assert action is not None
    draft = records.action(
        FACTS, action["action"], action["request_id"], action["loan_id"], action["applied_at"], action["by"]
    )
    written = world.codec.encode(world.id_of(example.topic), draft.record)
    assert world.decode(example.topic, written) == action | {"model": "credit"}
