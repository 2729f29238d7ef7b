"""ClickHouse's tables: one per kind of record, its columns taken from the record's Avro schema.

A model's records have tables of their own, ``MODEL_requests``, ``MODEL_predictions`` and so on (hyphens
become underscores), made by ``tailrace apply``; the control topics' are made by migrations. A row stands for
one record of a topic and says which: every table has ``_topic``, ``_partition``, ``_offset`` and ``_time``
(when it was appended) and is ordered by the first three. What cannot be decoded is in ``unreadable``.

A prediction nests its request, an outcome nests its prediction. In their tables the inner record's fields stand
beside the outer one's, after them and under their own names; where a name is taken, a feature or context field is
``feature_NAME``, the request's own ids and event time, as received, are ``given_NAME``, and a prediction's field is
``prediction_NAME``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.clickhouse.client import RowStore, quoted
from tailrace.clickhouse.history import marked_lost
from tailrace.contracts.language.names import avro_name
from tailrace.contracts.records.lanes import (
    ALERTS,
    CLOCKS,
    COMMANDS,
    CONTRACTS,
    DRIFT_REPORTS,
    MANIFESTS,
    PERFORMANCE_REPORTS,
    ROLLOUTS,
    TRAINING_RUNS,
)
from tailrace.contracts.records.schemas import AvroSchema, lane_schemas
from tailrace.errors import TailraceError

if TYPE_CHECKING:
    from tailrace.contracts.language.model_contract import ModelContract

log = logging.getLogger(__name__)

UNREADABLE = "unreadable"
DEAD_LETTERS = "dead_letters"
CONTROL_TABLES = {
    CONTRACTS: "contracts",
    MANIFESTS: "manifests",
    ROLLOUTS: "rollouts",
    COMMANDS: "commands",
    ALERTS: "alerts",
    DRIFT_REPORTS: "drift_reports",
    PERFORMANCE_REPORTS: "performance_reports",
    TRAINING_RUNS: "training_runs",
    CLOCKS: "clocks",
}

TIME = "DateTime64(3, 'UTC')"
FIRST_TIME, LAST_TIME = -2_208_988_800_000, 10_413_791_999_999
"""1900-01-01 and the last millisecond of 2299, UTC: what ClickHouse can tell apart."""
COORDINATES = {
    "_topic": "LowCardinality(String)",
    "_partition": "UInt32",
    "_offset": "UInt64",
    "_time": TIME,
}

# How many blocks of one table ClickHouse remembers the tokens of. An insert that is repeated later than this
# many others would count twice: at ten blocks a second a quarter of an hour, far beyond any time-out.
DEDUPLICATION_WINDOW = 10_000

ENGINE = (
    "ENGINE = ReplacingMergeTree ORDER BY (_topic, _partition, _offset) "
    f"SETTINGS non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"
)

# Fields of our own records with few different values.
_FEW_VALUES = frozenset(
    {
        *("action", "action_taken", "applied_by", "arm", "artifact_digest", "by", "code", "command"),
        *("contract_digest", "field", "key_id", "kind", "labelled_by", "lane", "model", "owner"),
        *("predicted_class", "published_by", "role", "rule", "segment", "service", "served_by"),
        *("served_cause", "severity", "state", "step", "template", "topic", "trigger", "verdict"),
    }
)


class TableColumn(NamedTuple):
    """A column and how its value is found in a decoded record."""

    name: str
    type: str
    value: Callable[[Mapping[str, Any]], Any]


class TimeOutOfRange(ValueError):
    """A time, in ms since 1970, that no column of ClickHouse can hold."""

    def __init__(self, milliseconds: int) -> None:
        super().__init__(
            f"{milliseconds} ms since 1970 is before 1900 or after 2299, where ClickHouse has no times"
        )


class TableConflict(TailraceError):
    """A column is there with another type than the one needed."""


def table_name(model: str, topic_suffix: str) -> str:
    """The table of a model's records on ``LANE.topic_suffix``."""
    return f"{avro_name(model)}_{topic_suffix.replace('-', '_')}"


def model_tables(contract: ModelContract) -> dict[str, str]:
    """The tables of a model's records, by topic."""
    return {
        topic: table_name(contract.model, topic.removeprefix(f"{contract.lane}."))
        for topic in lane_schemas(contract)
    }


def ensure_tables(
    store: RowStore,
    contract: ModelContract,
    stored: Callable[[str], bool] = lambda topic: False,
    absent: Collection[str] = (),
) -> list[str]:
    """Creates the model's tables, or adds the columns that they lack. Gives back what was run.

    Args:
        stored: of a topic, whether records of it had been stored; a table of it that is created then lacks them.
        absent: tables that are known not to be there, which spares a question each.

    Raises:
        TableConflict: a column is there with another type.
    """
    few = few_values_of(contract)
    tables = model_tables(contract)
    done = []
    for topic, schema in lane_schemas(contract).items():
        existing: dict[str, str] | None = {} if tables[topic] in absent else None
        done += ensure_table(store, tables[topic], columns_of(schema, few), partial(stored, topic), existing)
    return done


def few_values_of(contract: ModelContract) -> set[str]:
    """Names of the contract's fields that have categories."""
    few = {
        *(name for name, feature in contract.features.items() if feature.type == "category"),
        *(name for name, field in contract.context.items() if field.type == "category"),
    }
    if contract.target.type == "category":
        few |= {contract.target.name, "label"}
    return few


def ensure_table(
    store: RowStore,
    table: str,
    columns: Sequence[TableColumn],
    stored: Callable[[], bool] = lambda: False,
    existing: Mapping[str, str] | None = None,
) -> list[str]:
    """Creates a table with these columns, or adds those that it lacks. Gives back what was run.

    Args:
        stored: whether records for it had been stored; asked where it is created.
        existing: the table's columns with their types, where they are known.

    Raises:
        TableConflict: a column is there with another type.
    """
    existing = store.columns(table) if existing is None else existing
    if not existing:
        statement = create_table(table, columns)
        if stored():
            statement = marked_lost(statement)
            log.warning(
                f"{table} was gone from ClickHouse and is made again, empty: `tailrace rebuild {table}`"
            )
        store.command(statement)
        return [statement]
    for column in columns:
        if column.name in existing and not fits(column.type, existing[column.name]):
            raise TableConflict(
                f"ClickHouse's {table}.{column.name} is {existing[column.name]}, and {column.type} is needed: "
                "give the field another name, or have whoever administers ClickHouse run "
                f"ALTER TABLE {table} DROP COLUMN {column.name} (the ClickHouse of `tailrace up` lets nobody)"
            )
    missing = [f"{quoted(column.name)} {column.type}" for column in columns if column.name not in existing]
    if not missing:
        return []
    additions = ", ".join(f"ADD COLUMN IF NOT EXISTS {column}" for column in missing)
    statement = f"ALTER TABLE {quoted(table)} {additions}"
    store.command(statement)
    return [statement]


def create_table(table: str, columns: Sequence[TableColumn]) -> str:
    """The statement that creates the table."""
    lines = [*COORDINATES.items(), *((column.name, column.type) for column in columns)]
    body = ",\n".join(f"    {quoted(name)} {kind}" for name, kind in lines)
    return f"CREATE TABLE IF NOT EXISTS {quoted(table)} (\n{body}\n)\n{ENGINE}"


def columns_of(schema: AvroSchema, few_values: Iterable[str] = ()) -> list[TableColumn]:
    """The columns of a record's table, in order.

    Args:
        schema: the record's Avro schema.
        few_values: names of text fields with few different values, besides those that are known to have few.
    """
    few = _FEW_VALUES | set(few_values)
    records = _named_records(schema)
    columns: list[TableColumn] = []
    taken: set[str] = set()
    path: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = schema
    while record is not None:
        inner, inside = None, path
        for field in record["fields"]:
            name, kind = field["name"], _spelled_out(field["type"], records)
            if name in _SPREAD and isinstance(kind, dict) and kind["type"] == "record":
                inner, inside = kind, (*path, name)
                continue
            prefix = _prefix(path, name, kind)
            own = _columns(name, kind, (*path, name), few)
            while any(column.name in taken for column in own):
                name = prefix + name
                own = _columns(name, kind, (*path, field["name"]), few)
            columns += own
            taken |= {column.name for column in own}
        record, path = inner, inside
    return columns


# Nested records whose fields stand beside the outer record's own; the field is called as the record is.
_SPREAD = frozenset({"prediction", "request"})


def _prefix(path: tuple[str, ...], name: str, kind: Any) -> str:
    """Goes before the name of a nested record's field where an outer one has that name."""
    if path and path[-1] == "prediction":
        return "prediction_"
    return "given_" if name in ("request_id", "model") or _is_time(kind) else "feature_"


def _named_records(schema: Any, namespace: str = "") -> dict[str, Any]:
    """The records that a schema defines, by full name: it spells each out once and names it from then on."""
    records: dict[str, Any] = {}
    inner = schema if isinstance(schema, list) else []
    if isinstance(schema, dict):
        if schema["type"] == "record":
            namespace = schema.get("namespace", namespace)
            records[f"{namespace}.{schema['name']}".removeprefix(".")] = schema
        inner = [schema["type"], schema.get("items"), schema.get("values")]
        inner += [field["type"] for field in schema.get("fields", ())]
    for each in inner:
        records |= _named_records(each, namespace)
    return records


def _spelled_out(kind: Any, records: Mapping[str, Any]) -> Any:
    """The type with every name of a record replaced by what it names."""
    if isinstance(kind, str):
        return _spelled_out(records[kind], records) if kind in records else kind
    if isinstance(kind, list):
        return [_spelled_out(branch, records) for branch in kind]
    spelled = {
        key: _spelled_out(value, records) if key in ("items", "values") else value
        for key, value in kind.items()
    }
    if "fields" in kind:
        spelled["fields"] = [{**f, "type": _spelled_out(f["type"], records)} for f in kind["fields"]]
    return spelled


def fits(wanted: str, existing: str) -> bool:
    """Whether every value of a column of type ``wanted`` can be kept in one of type ``existing``."""
    wanted, wants_null = _bare(wanted)
    existing, has_null = _bare(existing)
    if wants_null and not has_null:
        return False
    wider = ("Int32", "Int64"), ("Int32", "Float64"), ("Int64", "Float64")
    return wanted == existing or (wanted, existing) in wider


def _bare(kind: str) -> tuple[str, bool]:
    if kind.startswith("LowCardinality(") and kind.endswith(")"):
        kind = kind[len("LowCardinality(") : -1]
    if kind.startswith("Nullable(") and kind.endswith(")"):
        return kind[len("Nullable(") : -1], True
    return kind.replace("LowCardinality(String)", "String"), False


_SCALARS = {
    "string": "String",
    "bytes": "String",
    "boolean": "Bool",
    "int": "Int32",
    "long": "Int64",
    "float": "Float64",
    "double": "Float64",
    "enum": "String",
}


def _columns(
    name: str, kind: Any, path: tuple[str, ...], few: frozenset[str] | set[str]
) -> list[TableColumn]:
    kind, nullable = _without_null(kind)
    if isinstance(kind, dict) and kind["type"] == "record":
        columns = []
        for field in kind["fields"]:
            inner, field_name = field["type"], field["name"]
            inner = ["null", inner] if nullable and not isinstance(inner, list) else inner
            columns += _columns(f"{name}_{field_name}", inner, (*path, field_name), few)
        return columns
    scalar, get = _scalar(kind), _getter(path)
    if scalar is not None:
        wrapped = f"Nullable({scalar})" if nullable else scalar
        if scalar == "String" and kind != "bytes" and path[-1] in few:
            wrapped = f"LowCardinality({wrapped})"
        return [TableColumn(name, wrapped, partial(_within, get) if scalar == TIME else get)]
    if isinstance(kind, dict) and kind["type"] == "map" and (value := _element(kind["values"])):
        column_type = f"Map(LowCardinality(String), {value.type})"
        return [TableColumn(name, column_type, lambda record: get(record) or {})]
    if isinstance(kind, dict) and kind["type"] == "array" and (element := _element(kind)):
        return [TableColumn(name, element.type, lambda record: element.of(get(record) or []))]
    return [TableColumn(name, "String", lambda record: json.dumps(get(record), default=repr))]


class _Element(NamedTuple):
    """What an array or a map consists of: ClickHouse's type, and how a decoded value becomes one of it."""

    type: str
    of: Callable[[Any], Any]


def _element(kind: Any) -> _Element | None:
    """None where ClickHouse has no type for it: a union, a map, a record that may be null."""
    kind, nullable = _without_null(kind)
    scalar = _scalar(kind)
    if scalar is not None:
        of = partial(_within, _same) if scalar == TIME else _same
        return _Element(f"Nullable({scalar})" if nullable else scalar, of)
    if nullable or not isinstance(kind, dict):
        return None
    if kind["type"] == "array" and (item := _element(kind["items"])):
        return _Element(f"Array({item.type})", lambda values: [item.of(value) for value in values])
    if kind["type"] == "record":
        parts = {field["name"]: _element(field["type"]) for field in kind["fields"]}
        known = {name: part for name, part in parts.items() if part is not None}
        if len(known) == len(parts):
            inner = ", ".join(f"{name} {part.type}" for name, part in known.items())
            return _Element(
                f"Tuple({inner})",
                lambda record: tuple(part.of(record[name]) for name, part in known.items()),
            )
    return None


def _getter(path: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Any]:
    """The value at a path of field names; None where a record on the way is null."""
    get: Callable[[Mapping[str, Any]], Any] = itemgetter(path[0])
    for name in path[1:]:
        get = partial(_inner, get, name)
    return get


def _inner(outer: Callable[[Any], Any], name: str, record: Any) -> Any:
    found = outer(record)
    return None if found is None else found[name]


def _same(value: Any) -> Any:
    return value


def _within(get: Callable[[Any], int | None], record: Any) -> int | None:
    """A time as it is: ClickHouse would make the nearest that it has of one before 1900 or after 2299."""
    milliseconds = get(record)
    if milliseconds is not None and not FIRST_TIME <= milliseconds <= LAST_TIME:
        raise TimeOutOfRange(milliseconds)
    return milliseconds


def _scalar(kind: Any) -> str | None:
    if isinstance(kind, dict):
        if _is_time(kind):
            return TIME
        kind = kind["type"]
    return _SCALARS.get(kind) if isinstance(kind, str) else None


def _is_time(kind: Any) -> bool:
    kind, _ = _without_null(kind)
    return isinstance(kind, dict) and kind.get("logicalType") == "timestamp-millis"


def _without_null(kind: Any) -> tuple[Any, bool]:
    if isinstance(kind, list):
        rest = [branch for branch in kind if branch != "null"]
        if len(rest) == 1:
            return rest[0], len(rest) < len(kind)
    return kind, False
