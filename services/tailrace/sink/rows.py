"""From a message to a row: in which table it belongs and what its columns are.

A record that names its model in its schema goes into that model's table by the schema it was written with, so
that fields the sink's contracts do not know yet are kept. JSON, and Avro of a schema of the producer's own, are
read by the contract: the newest revision that fits. Whatever is readable once stays readable, since schemas
and contract revisions are only ever added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple, cast

from tailrace.avro.codec import Codec, is_json, read_schema_id
from tailrace.clickhouse.client import NO_COLUMN, QueryFailed, RowStore
from tailrace.clickhouse.tables import (
    CONTROL_TABLES,
    COORDINATES,
    DEAD_LETTERS,
    UNREADABLE,
    TableColumn,
    TableConflict,
    TimeOutOfRange,
    columns_of,
    ensure_table,
    ensure_tables,
    few_values_of,
    model_tables,
    table_name,
)
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.names import avro_name
from tailrace.contracts.records.control_codec import CONTROL_NAMES, control_schema
from tailrace.contracts.records.input_size import LARGEST, is_large, too_large
from tailrace.contracts.records.json_input import JsonInput, Kind, parse_object
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import LANE_RECORDS, AvroSchema, lane_schemas
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import BadRecord
from tailrace.streaming import dead_letters
from tailrace.streaming.records import Message
from tailrace.streaming.watermark_records import watermark_time

_JSON_KINDS: dict[str, Kind] = {"requests": "requests", "labels": "labels", "actions": "actions"}


@dataclass(frozen=True, eq=False)
class TableLayout:
    """A table, and the columns of it that one kind of record fills."""

    table: str
    columns: tuple[TableColumn, ...]
    has_bytes: bool = False
    """Its records have bytes somewhere, where tables have texts."""

    @cached_property
    def narrow(self) -> tuple[TableColumn, ...]:
        """Columns that may be too narrow: Avro's bytes can hold 64 bits in an int, too."""
        return tuple(column for column in self.columns if column.type in ("Int32", "Nullable(Int32)"))

    @cached_property
    def times(self) -> tuple[TableColumn, ...]:
        """Columns of times, alone or within others."""
        return tuple(column for column in self.columns if "DateTime64" in column.type)


class Row(NamedTuple):
    """A message and what it says."""

    message: Message
    layout: TableLayout
    record: Mapping[str, Any]


Block = dict[str, list[Any]]
"""Columns of one table, all of the same length."""

_BYTES = "Nullable(String)"
_HEADERS = "Array(Tuple(name String, value String))"


def _fixed(table: str, **types: str) -> TableLayout:
    columns = (TableColumn(name, kind, itemgetter(name)) for name, kind in types.items())
    return TableLayout(table, tuple(columns))


UNREADABLE_LAYOUT = _fixed(
    UNREADABLE, code="LowCardinality(String)", reason="String", key=_BYTES, value=_BYTES, headers=_HEADERS
)
DEAD_LETTER_LAYOUT = _fixed(
    DEAD_LETTERS,
    code="LowCardinality(String)",
    reason="String",
    field="LowCardinality(Nullable(String))",
    source_topic="LowCardinality(String)",
    source_partition="Int32",
    source_offset="Int64",
    service="LowCardinality(String)",
    key=_BYTES,
    value=_BYTES,
    headers=_HEADERS,
    sha256="Nullable(String)",
)


class RowReader:
    """Reads messages as rows.

    Args:
        records: reads control records.
        store: where the tables are; a column or table that a schema needs and that is not there is made.
        contracts: reads the contracts' topic from its start to its present end. Asked for what seems to be
            ahead of the contracts that are known.
        stored: of a topic, whether records of it had been stored; a table of it that is made then lacks them.
    """

    def __init__(
        self,
        records: ControlRecords,
        store: RowStore,
        contracts: Callable[[], Iterable[Message]] = lambda: (),
        stored: Callable[[str], bool] = lambda topic: False,
    ) -> None:
        self._codec = Codec(records.registry)
        self._control = records.codec
        self._store = store
        self._all_contracts = contracts
        self._stored = stored
        self._contracts = Contracts()
        self._state = ControlState(records, self._contracts)
        self._refreshed = False
        self._layouts: dict[object, TableLayout | BadRecord] = {}
        self._json: dict[tuple[str, Kind], JsonInput] = {}
        self._schemas: dict[str, dict[str, AvroSchema]] = {}

    def control(self, messages: Iterable[Message]) -> None:
        """Takes up what is new on the contracts' topic."""
        self._state.take(messages)

    def topics(self) -> frozenset[str]:
        """Every topic that is stored: control topics, and those of each lane that ever had a contract."""
        lanes = {Lane(applied.contract.lane) for applied in self._contracts.by_digest.values()}
        return frozenset(CONTROL_TABLES) | {t for lane in lanes for t in lane.topics if t != lane.rekeyed}

    def tables(self) -> dict[str, list[str]]:
        """Every table, with the topics whose records it has."""
        lanes = {Lane(applied.contract.lane) for applied in self._contracts.by_digest.values()}
        tables = {table: [topic] for topic, table in CONTROL_TABLES.items()}
        tables[DEAD_LETTERS] = sorted(lane.dead_letters for lane in lanes)
        tables[UNREADABLE] = sorted(self.topics())
        for applied in self._contracts.by_digest.values():
            for topic, table in model_tables(applied.contract).items():
                topics = tables.setdefault(table, [])
                if topic not in topics:
                    topics.append(topic)
        return tables

    def models(self) -> list[str]:
        """Those that have a contract by now."""
        self.control(self._all_contracts())
        return sorted(self._contracts.current)

    def restore_tables(self) -> None:
        """Makes tables of models that are gone."""
        for applied in self._contracts.current.values():
            # A column of another type is met, and reported, where a record needs it.
            with suppress(TableConflict):
                ensure_tables(self._store, applied.contract, self._stored)

    def begin(self) -> None:
        """Before a batch: contracts may have come since the last one."""
        self._refreshed = False
        self._codec.begin_batch()

    def read(self, message: Message) -> Row | None:
        """The message as a row of its table; None for a watermark record.

        Raises:
            BadRecord: it cannot be decoded, or does not fit into its columns; see `unreadable`.
            Unavailable: registry or ClickHouse is away.
        """
        row = self._row(message)
        if row is None:
            return None
        _check_width(row)
        return row

    def _row(self, message: Message) -> Row | None:
        value = message.value()
        topic = message.topic()
        if value is None and watermark_time(message) is not None:
            return None
        if topic in CONTROL_TABLES:
            name = CONTROL_NAMES[topic]
            return Row(message, self._control_layout(topic, name), self._control.decode(name, value))
        lane, _, suffix = topic.rpartition(".")
        if suffix == "dead-letters":
            return Row(message, DEAD_LETTER_LAYOUT, _dead_letter(message))
        if suffix in _JSON_KINDS and is_large(message):
            raise too_large(message)
        if is_json(value):
            return self._with_newest(message, lane, suffix, self._read_json)
        layout = self._avro_layout(topic, lane, suffix, read_schema_id(value))
        if layout is None:
            return self._with_newest(message, lane, suffix, self._read_foreign)
        record = self._codec.decode(value).record
        return Row(message, layout, _texts(record) if layout.has_bytes else record)

    def forget_tables(self) -> None:
        """After a table or column that was there is gone: look again."""
        self._layouts.clear()

    # Avro ---

    def _avro_layout(self, topic: str, lane: str, suffix: str, schema_id: int) -> TableLayout | None:
        """By the schema that it was written with; None where that is not of one of the lane's models."""
        key = (topic, schema_id)
        if key not in self._layouts:
            schema = self._codec.writer_schema(schema_id)
            if not isinstance(schema, dict) or schema.get("type") != "record":
                raise BadRecord("unsupported-schema", f"schema {schema_id} is not of a record")
            model = self._model_of(schema, lane, suffix)
            if model is None:
                return None
            if taken := sorted({field["name"] for field in schema["fields"]} & COORDINATES.keys()):
                reason = f"schema {schema_id} has a field {taken[0]}, which is a column of every table"
                raise BadRecord("unsupported-schema", reason, taken[0])
            self._layouts[key] = self._make(table_name(model, suffix), schema, model, topic)
        return self._known_layout(key)

    def _known_layout(self, key: object) -> TableLayout:
        layout = self._layouts[key]
        if isinstance(layout, BadRecord):
            raise layout
        return layout

    def _model_of(self, schema: Mapping[str, Any], lane: str, suffix: str) -> str | None:
        full = f"{schema.get('namespace', '')}.{schema['name']}".removeprefix(".")
        for again in (False, True):
            if again and not self._try_refresh():
                break
            for contract in self._newest_first(lane):
                if full == f"tailrace.{avro_name(contract.model)}.{LANE_RECORDS.get(suffix)}":
                    return contract.model
        return None

    def _read_foreign(self, message: Message, contract: ModelContract, suffix: str) -> Row:
        record = self._codec.decode(message.value(), self._schema(contract, message.topic())).record
        return Row(message, self._contract_layout(contract, suffix), record)

    def _schema(self, contract: ModelContract, topic: str) -> AvroSchema:
        if contract.digest not in self._schemas:
            self._schemas[contract.digest] = lane_schemas(contract)
        return self._schemas[contract.digest][topic]

    # By contract ---

    def _with_newest(
        self, message: Message, lane: str, suffix: str, read: Callable[[Message, ModelContract, str], Row]
    ) -> Row:
        """Reads by the newest revision of the model's contract that it fits."""
        failure: BadRecord | None = None
        for again in (False, True):
            if again and not self._try_refresh():
                break
            model = self._named_model(message, lane)
            for contract in self._newest_first(lane):
                if contract.model == model:
                    try:
                        return read(message, contract, suffix)
                    except BadRecord as error:
                        failure = failure or error
        reason = f"no contract of lane {lane} is of the model that it names"
        raise failure or BadRecord("unknown-model", reason)

    def _named_model(self, message: Message, lane: str) -> str:
        models = {contract.model for contract in self._newest_first(lane)}
        if is_json(message.value()):
            named = parse_object(message.value() or b"").get("model")
            if isinstance(named, str):
                return named
        return lane if lane in models or len(models) != 1 else next(iter(models))

    def _read_json(self, message: Message, contract: ModelContract, suffix: str) -> Row:
        kind = _JSON_KINDS.get(suffix)
        if kind is None:
            raise BadRecord("wrong-magic", f"{suffix} are Avro, this is JSON")
        key = (contract.digest, kind)
        if key not in self._json:
            self._json[key] = JsonInput(contract, kind)
        record = self._json[key].parse(message.value() or b"")
        return Row(message, self._contract_layout(contract, suffix), record)

    def _contract_layout(self, contract: ModelContract, suffix: str) -> TableLayout:
        key, topic = (contract.digest, suffix), f"{contract.lane}.{suffix}"
        if key not in self._layouts:
            table, schema = table_name(contract.model, suffix), self._schema(contract, topic)
            self._layouts[key] = self._make(table, schema, contract.model, topic)
        return self._known_layout(key)

    def _newest_first(self, lane: str) -> list[ModelContract]:
        applied = [a for a in self._contracts.by_digest.values() if a.contract.lane == lane]
        return [a.contract for a in sorted(applied, key=lambda a: (-a.revision, a.model))]

    def _try_refresh(self) -> bool:
        if self._refreshed:
            return False
        self._refreshed = True
        before = len(self._contracts.by_digest)
        self.control(self._all_contracts())
        return len(self._contracts.by_digest) != before

    # Tables ---

    def _control_layout(self, topic: str, name: str) -> TableLayout:
        if topic not in self._layouts:
            columns = columns_of(cast(AvroSchema, control_schema(name)))
            self._layouts[topic] = TableLayout(CONTROL_TABLES[topic], tuple(columns))
        return self._known_layout(topic)

    def _make(self, table: str, schema: AvroSchema, model: str, topic: str) -> TableLayout | BadRecord:
        newest = self._contracts.current.get(model)
        columns = columns_of(schema, few_values_of(newest.contract) if newest else ())
        try:
            ensure_table(self._store, table, columns, lambda: self._stored(topic))
        except TableConflict as conflict:
            return BadRecord("type-conflict", str(conflict))
        except QueryFailed as refused:
            if refused.code not in NO_COLUMN:
                raise
            return BadRecord("type-conflict", f"ClickHouse has no such columns: {refused}")
        # Of our own schemas none has bytes or a fixed: a producer's may, for a text or for what no contract knows.
        has_bytes = any(kind in json.dumps(schema) for kind in ('"bytes"', '"fixed"'))
        return TableLayout(table, tuple(columns), has_bytes)


def _check_width(row: Row) -> None:
    for column in row.layout.narrow:
        value = column.value(row.record)
        if value is not None and not -(2**31) <= value < 2**31:
            raise BadRecord("out-of-range", f"{column.name} is beyond 32 bits: {value}", column.name)
    for column in row.layout.times:
        try:
            column.value(row.record)
        except TimeOutOfRange as error:
            raise BadRecord("out-of-range", f"{column.name}: {error}", column.name) from None


def unreadable(message: Message, error: BadRecord) -> Row:
    """The row of a message that could not be decoded; of a value that is too large its beginning."""
    value = message.value()
    if value is not None and error.code == "too-large":
        value = value[:LARGEST]
    original = {"key": message.key(), "value": value, "headers": _headers(message.headers())}
    return Row(message, UNREADABLE_LAYOUT, {"code": error.code, "reason": error.reason, **original})


def blocks(rows: Sequence[Row]) -> dict[str, Block]:
    """One block for each table. A column that only some of a table's rows have is empty in the others."""
    by_table: dict[str, dict[TableLayout, list[Row]]] = {}
    for row in rows:
        by_table.setdefault(row.layout.table, {}).setdefault(row.layout, []).append(row)
    return {table: _block(list(by_layout.items())) for table, by_layout in by_table.items()}


def _block(parts: list[tuple[TableLayout, list[Row]]]) -> Block:
    messages = [row.message for _, rows in parts for row in rows]
    block: Block = {
        "_topic": [message.topic() for message in messages],
        "_partition": [message.partition() for message in messages],
        "_offset": [message.offset() for message in messages],
        "_time": [message.timestamp()[1] for message in messages],
    }
    types = {column.name: column.type for layout, _ in parts for column in layout.columns}
    for name, kind in types.items():
        values: list[Any] = []
        for layout, rows in parts:
            get = next((column.value for column in layout.columns if column.name == name), None)
            if get is None:
                values += [_empty(kind)] * len(rows)
            else:
                values += [get(row.record) for row in rows]
        block[name] = values
    return block


def _texts(value: Any) -> Any:
    """Bytes as the text that Avro promotes them to; a column of texts takes no bytes."""
    if isinstance(value, list | tuple):
        return type(value)(map(_texts, value))
    if isinstance(value, dict):
        return {name: _texts(inner) for name, inner in value.items()}
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _empty(kind: str) -> Any:
    return [] if kind.startswith("Array(") else {} if kind.startswith("Map(") else None


def _dead_letter(message: Message) -> dict[str, Any]:
    try:
        letter = dead_letters.parse(message)
    except ValueError as error:
        raise BadRecord("not-a-dead-letter", str(error)) from error
    source = {f"source_{name}": value for name, value in letter.source._asdict().items()}
    return vars(letter) | source | {"headers": _headers(letter.headers)}


def _headers(headers: Iterable[tuple[str, bytes | None]] | None) -> list[tuple[str, bytes]]:
    return [(name, content or b"") for name, content in headers or ()]
