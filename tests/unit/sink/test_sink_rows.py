"""From messages to rows: which table, which columns, and what counts as unreadable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import pytest

from tailrace.avro.codec import Codec
from tailrace.clickhouse.tables import UNREADABLE, TableColumn
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.input_size import LARGEST, too_large
from tailrace.contracts.records.lanes import CONTRACTS, ROLLOUTS
from tailrace.contracts.records.schemas import lane_schemas, subject
from tailrace.errors import BadRecord, Unavailable
from tailrace.sink.rows import Row, RowReader, TableLayout, blocks, unreadable
from tailrace.streaming import dead_letters
from tailrace.streaming.records import DeadLetter, PlainMessage
from tailrace.streaming.watermark_records import watermark_record
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control

CONTRACT = """
model: {model}
lane: {lane}
owner: {{team: risk}}
features:
  income: {{type: number}}
  {field}: {{type: {type}}}
target: {{name: defaulted, type: boolean}}
"""


def contract(
    model: str = "credit", lane: str = "credit", field: str = "age", kind: str = "integer"
) -> ModelContract:
    return load_contract(CONTRACT.format(model=model, lane=lane, field=field, type=kind))


class Tables:
    """Columns that statements made; every one is there from when it is asked for."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.types: dict[str, dict[str, str]] = {}

    def columns(self, table: str) -> dict[str, str]:
        return self.types.get(table, {})

    def command(self, sql: str) -> None:
        self.made.append(sql.split("`")[1])

    def insert(
        self, table: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], token: str
    ) -> None:
        raise AssertionError

    last_offset = offsets = is_replicated = insert


class World:
    """A registry, a contracts' topic, and a reader of rows."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        self.codec = Codec(self.registry)
        self.control = Control(self.registry)
        self.contracts: list[PlainMessage] = []
        self.asked = 0
        self.tables = Tables()
        self.reader = RowReader(self.control.by("sink"), self.tables, self._all_contracts)
        self.offset = 0

    def _all_contracts(self) -> list[PlainMessage]:
        self.asked += 1
        return self.contracts

    def apply(self, applied: ModelContract, *, heard: bool = True) -> None:
        revision = sum(1 for message in self.contracts if message.key() == applied.model.encode())
        record = {
            "model": applied.model,
            "revision": revision + 1,
            "follows": revision,
            "digest": applied.digest,
            "source_text": "",
            "resolved": applied.resolved_json,
            "applied_by": "me",
            "applied_at": 1,
        }
        self.contracts.append(self.message(*self.control.record("Contract", record)[:4]))
        if heard:
            self.reader.control(self.contracts[-1:])

    def message(
        self, topic: str, value: bytes | None, key: bytes | None = None, headers: Any = ()
    ) -> PlainMessage:
        self.offset += 1
        return PlainMessage(topic, 2, self.offset, value, key, headers, 1_700_000_000_123)

    def avro(self, contract: ModelContract, suffix: str, record: dict[str, Any]) -> PlainMessage:
        topic = f"{contract.lane}.{suffix}"
        schema_id = self.registry.register(
            subject(topic, contract.model, contract.lane), lane_schemas(contract)[topic]
        )
        return self.message(topic, self.codec.encode(schema_id, record))

    def json(self, topic: str, record: dict[str, Any]) -> PlainMessage:
        return self.message(topic, json.dumps(record).encode())

    def read(self, message: PlainMessage) -> tuple[str, dict[str, Any]]:
        self.reader.begin()
        row = self.reader.read(message)
        assert row is not None
        ((table, block),) = blocks([row]).items()
        return table, {name: values[0] for name, values in block.items()}

    def refusal(self, message: PlainMessage) -> str:
        self.reader.begin()
        with pytest.raises(BadRecord) as refused:
            self.reader.read(message)
        return refused.value.code


@pytest.fixture
def world() -> World:
    found = World()
    found.apply(contract())
    return found


def test_avro_and_json_make_the_same_row(world: World) -> None:
    record = {"request_id": "r", "model": None, "event_time": 5, "income": 1.5, "age": 30}
    table, avro = world.read(world.avro(contract(), "requests", record))
    json_table, from_json = world.read(
        world.json("credit.requests", {"request_id": "r", "event_time": 5} | {"income": 1.5, "age": 30})
    )
    assert table == json_table == "credit_requests"
    assert avro["_topic"] == "credit.requests"
    assert (avro["_partition"], avro["_time"]) == (2, 1_700_000_000_123)
    avro.pop("_offset"), from_json.pop("_offset")
    assert (
        avro
        == from_json
        == {"_topic": "credit.requests", "_partition": 2, "_time": 1_700_000_000_123} | record
    )


def of_own_schema(world: World, types: dict[str, Any], record: dict[str, Any]) -> PlainMessage:
    """A request in a producer's schema, whose record is called as the contract's."""
    given = lane_schemas(contract())["credit.requests"]
    fields = [{**field, "type": types.get(field["name"], field["type"])} for field in given["fields"]]
    new = types.keys() - {field["name"] for field in fields}
    fields += [{"name": name, "type": types[name]} for name in sorted(new)]
    schema_id = world.registry.register("elsewhere", {**given, "fields": fields})
    return world.message("credit.requests", world.codec.encode(schema_id, record))


def test_bytes_for_a_text_are_the_text_beside_texts(world: World) -> None:
    types = {"request_id": ["null", "bytes"], "more": {"type": "array", "items": "bytes"}}
    theirs = of_own_schema(world, types, {"request_id": b"r\xc3\xa9", "more": [b"x", b"\xff"]})
    ours = world.avro(contract(), "requests", {"request_id": "r2"})
    world.reader.begin()
    rows = [row for message in (theirs, ours) if (row := world.reader.read(message)) is not None]
    ((_, block),) = blocks(rows).items()
    assert block["request_id"] == ["ré", "r2"]
    assert block["more"] == [["x", "\\xff"], []]


@pytest.mark.parametrize("name", ["_offset", "_topic"])
def test_a_schema_that_names_a_column_of_every_table_is_refused(world: World, name: str) -> None:
    message = of_own_schema(world, {name: "string"}, {name: "forged"})
    assert world.refusal(message) == "unsupported-schema"


@pytest.mark.parametrize("suffix", ["requests", "labels", "actions"])
def test_what_is_too_large_is_not_decoded_and_stored_by_its_beginning(world: World, suffix: str) -> None:
    value = b"{" + b"[" * (2 * LARGEST)
    message = world.message(f"credit.{suffix}", value)
    assert world.refusal(message) == "too-large"
    ((table, block),) = blocks([unreadable(message, too_large(message))]).items()
    assert (table, block["code"], block["value"]) == (UNREADABLE, ["too-large"], [value[:LARGEST]])


def test_topics_follow_the_contracts(world: World) -> None:
    assert "other.labels" not in world.reader.topics()
    world.apply(contract("other", "other"))
    assert {
        "other.labels",
        "other.dead-letters",
        "credit.requests",
        ROLLOUTS,
        CONTRACTS,
    } <= world.reader.topics()
    assert "tailrace.model-chunks" not in world.reader.topics()


def test_fields_that_no_contract_has_told_of_are_kept(world: World) -> None:
    """Schemas are registered before the contract that they come from is heard of."""
    wider = contract(field="debt", kind="number")
    table, row = world.read(world.avro(wider, "requests", {"income": 1.0, "debt": 2.0}))
    assert (table, row["debt"]) == ("credit_requests", 2.0)
    assert "age" not in row
    assert world.asked == 0


def test_a_contract_that_was_not_heard_of_is_looked_up(world: World) -> None:
    world.apply(contract(field="debt", kind="number"), heard=False)
    assert world.read(world.json("credit.requests", {"debt": 2}))[1]["debt"] == 2.0
    assert world.asked == 1
    # The older revision still reads what only it can.
    assert world.read(world.json("credit.requests", {"age": 2}))[1]["age"] == 2
    assert world.refusal(world.json("credit.requests", {"shoe": 2})) == "unknown-field"
    world.apply(contract("second", "credit"), heard=False)
    assert (
        world.read(world.avro(contract("second", "credit"), "labels", {"request_id": "r"}))[0]
        == "second_labels"
    )


def test_what_several_revisions_fit_is_read_by_the_newest_and_what_none_fits_is_told_by_it(
    world: World,
) -> None:
    world.apply(contract(field="debt", kind="number"))
    _, row = world.read(world.json("credit.requests", {"income": 1}))
    assert ("debt" in row, "age" in row) == (True, False)
    assert world.refusal(world.json("credit.requests", {"age": "many"})) == "unknown-field"
    assert world.refusal(world.json("credit.requests", {"debt": "much"})) == "wrong-type"


def test_models_that_share_a_lane_have_tables_of_their_own(world: World) -> None:
    second = contract("second-model", "credit", "height", "number")
    world.apply(second)
    assert world.read(world.avro(second, "requests", {"height": 1.0}))[0] == "second_model_requests"
    assert (
        world.read(world.json("credit.requests", {"model": "second-model", "height": 1}))[0]
        == "second_model_requests"
    )
    assert world.read(world.json("credit.requests", {"age": 1}))[0] == "credit_requests"
    assert world.refusal(world.json("credit.requests", {"model": "third", "age": 1})) == "unknown-model"


def test_a_producers_own_schema_is_read_by_the_contract(world: World) -> None:
    own = {
        "type": "record",
        "name": "Request",
        "namespace": "com.example",
        "fields": [{"name": "income", "type": "float"}, {"name": "shoe", "type": "string"}],
    }
    schema_id = world.registry.register("own", own)
    value = world.codec.encode(schema_id, {"income": 0.5, "shoe": "left"})
    table, row = world.read(world.message("credit.requests", value))
    assert (table, row["income"], row["age"]) == ("credit_requests", 0.5, None)
    assert "shoe" not in row
    other = {**own, "fields": [{"name": "income", "type": "string"}]}
    value = world.codec.encode(world.registry.register("odd", other), {"income": "much"})
    assert world.refusal(world.message("credit.requests", value)) == "incompatible-schema"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\x05garbage", "wrong-magic"),
        (b"\x00\x00", "truncated"),
        (b"\x00\x00\x00\x00\x63", "unknown-schema"),
        (b"{", "not-json"),
        (b'{"income": "much"}', "wrong-type"),
    ],
)
def test_what_cannot_be_read(world: World, value: bytes | None, code: str) -> None:
    message = world.message("credit.requests", value, b"\xffkey", [("h", b"\x00")])
    assert world.refusal(message) == code
    ((table, block),) = blocks([unreadable(message, BadRecord(code, "because"))]).items()
    assert table == "unreadable"
    assert (block["code"], block["value"], block["key"]) == ([code], [value], [b"\xffkey"])
    assert block["headers"] == [[("h", b"\x00")]]


@pytest.mark.parametrize("given", [2**63 - 1, -(2**63), -2_366_755_200_000])
def test_a_time_that_clickhouse_does_not_have_is_refused_with_its_record(world: World, given: int) -> None:
    record = world.avro(contract(), "requests", {"event_time": given})
    assert world.refusal(record) == "out-of-range"


@pytest.mark.parametrize("given", [10_413_791_999_999, -2_208_988_800_000, None, -5])
def test_a_time_that_clickhouse_has_is_kept_as_it_is(world: World, given: int | None) -> None:
    assert world.read(world.avro(contract(), "requests", {"event_time": given}))[1]["event_time"] == given


def test_marks_are_no_rows(world: World) -> None:
    record = watermark_record("credit.requests", 2, 99)
    assert world.reader.read(world.message(record.topic, record.value, record.key, record.headers)) is None


def test_dead_letters_are_what_their_headers_say(world: World) -> None:
    refused = world.message("credit.requests", b"\x05x", b"k", [("trace", b"t")])
    record = dead_letters.to_record(
        DeadLetter("credit.dead-letters", refused, "wrong-magic", "why", "income"), "scorer"
    )
    table, row = world.read(world.message(record.topic, record.value, record.key, record.headers))
    assert table == "dead_letters"
    assert (row["code"], row["field"], row["service"], row["sha256"]) == (
        "wrong-magic",
        "income",
        "scorer",
        None,
    )
    assert (row["source_topic"], row["source_offset"]) == ("credit.requests", refused.offset())
    assert (row["key"], row["value"], row["headers"]) == (b"k", b"\x05x", [("trace", b"t")])
    assert world.refusal(world.message("credit.dead-letters", b"?")) == "not-a-dead-letter"


def test_control_records(world: World) -> None:
    table, row = world.read(world.contracts[0])
    assert (table, row["model"], row["revision"]) == ("contracts", "credit", 1)
    assert world.refusal(world.message(ROLLOUTS, b"\x05x")) == "wrong-magic"
    assert world.refusal(world.message(ROLLOUTS, None)) == "empty"


def test_a_column_of_another_type_makes_records_unreadable(world: World) -> None:
    world.tables.types["credit_requests"] = {"income": "Nullable(Bool)"}
    assert world.refusal(world.avro(contract(), "requests", {"income": 1.0})) == "type-conflict"
    assert world.refusal(world.avro(contract(), "requests", {"income": 1.0})) == "type-conflict"


def test_the_registry_away_is_no_fault_of_the_record(world: World) -> None:
    message = world.avro(contract(field="debt", kind="number"), "requests", {"income": 1.0})
    world.registry.away = True
    with pytest.raises(Unavailable):
        world.reader.read(message)


def test_one_block_a_table_whatever_the_schemas(world: World) -> None:
    messages = [
        world.avro(contract(), "requests", {"age": 1}),
        world.avro(contract(field="debt", kind="number"), "requests", {"debt": 2.0}),
        world.avro(contract(), "requests", {"age": 3}),
        world.avro(contract(), "labels", {"defaulted": True}),
    ]
    by_table = blocks([row for message in messages if (row := world.reader.read(message)) is not None])
    assert set(by_table) == {"credit_requests", "credit_labels"}
    block = by_table["credit_requests"]
    by_offset = {o: (a, d) for o, a, d in zip(block["_offset"], block["age"], block["debt"], strict=True)}
    assert [by_offset[message.offset()] for message in messages[:3]] == [(1, None), (None, 2.0), (3, None)]
    assert {len(values) for values in block.values()} == {3}


def test_a_column_that_a_row_does_not_have_is_empty_after_its_kind(world: World) -> None:
    kinds = {"list": "Array(String)", "map": "Map(String, Float64)", "number": "Nullable(Float64)"}
    layouts = [TableLayout("t", (TableColumn(name, kind, itemgetter(name)),)) for name, kind in kinds.items()]
    contents: list[Any] = [["a"], {"b": 1.0}, 2.0]
    rows = [
        Row(world.message("t", b""), layout, {name: value})
        for layout, name, value in zip(layouts, kinds, contents, strict=True)
    ]
    block = blocks(rows)["t"]
    assert [block[name] for name in kinds] == [
        [["a"], [], []],
        [{}, {"b": 1.0}, {}],
        [None, None, 2.0],
    ]


@pytest.mark.parametrize(
    ("number", "fits"),
    [(2**31 - 1, True), (2**31, False), (-(2**31), True), (-(2**31) - 1, False), (None, True)],
)
def test_a_number_that_its_column_cannot_hold_is_refused_with_its_record(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int | None, fits: bool
) -> None:
    layout = TableLayout("t", (TableColumn("n", "Nullable(Int32)", itemgetter("n")),))
    monkeypatch.setattr(world.reader, "_row", lambda message: Row(message, layout, {"n": number}))
    message = world.message("t", b"")
    if fits:
        assert world.reader.read(message) is not None
    else:
        assert world.refusal(message) == "out-of-range"
