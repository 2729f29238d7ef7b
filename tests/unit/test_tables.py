"""ClickHouse's tables: columns by schema, what fits into what, and the migrations that make the fixed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tailrace.contracts.model_contract import load_contract
from tailrace.contracts.schemas import lane_schemas
from tailrace.kit.codec import CONTROL_RECORDS, control_schema
from tailrace.kit.migrations import MigrationError, read_migrations, split
from tailrace.kit.tables import (
    CONTROL_TABLES,
    COORDINATES,
    DEAD_LETTERS,
    UNREADABLE,
    TableConflict,
    columns_of,
    create_table,
    ensure_tables,
    fits,
    model_tables,
)
from tailrace.sink.rows import DEAD_LETTER_LAYOUT, UNREADABLE_LAYOUT

CONTRACT = """
model: credit-eu
owner: {team: risk}
key: {name: loan_id, type: integer}
event_time: {name: event_time}
features:
  income: {type: number}
  age: {type: integer}
  version: {type: integer}
  file: {type: boolean}
  purpose: {categories: [car, home]}
context:
  note: {type: string}
  region: {categories: [north, south]}
target: {name: grade, categories: [a, b, c]}
"""


def contract(text: str = CONTRACT) -> Any:
    return load_contract(text)


class Server:
    """Remembers the tables that statements make; understands no more SQL than `create_table` and ADD COLUMN."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, str]] = {}
        self.statements: list[str] = []

    def columns(self, table: str) -> dict[str, str]:
        return dict(self.tables.get(table, {}))

    def command(self, sql: str) -> None:
        self.statements.append(sql)
        if sql.startswith("CREATE TABLE IF NOT EXISTS `"):
            name = sql.split("`")[1]
            lines = (line.strip().rstrip(",") for line in sql.splitlines() if line.startswith("    `"))
            self.tables[name] = {line.split("`")[1]: line.split("` ", 1)[1] for line in lines}
        else:
            name = sql.split("`")[1]
            for added in sql.split("ADD COLUMN IF NOT EXISTS ")[1:]:
                self.tables[name][added.split("`")[1]] = added.split("` ", 1)[1].rstrip(", ")

    def insert(
        self, table: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], token: str
    ) -> None:
        raise AssertionError

    last_offset = offsets = is_replicated = insert


def types(topic: str) -> dict[str, str]:
    found = contract()
    return {
        column.name: column.type for column in columns_of(lane_schemas(found)[topic], ["purpose", "region"])
    }


def test_a_request_has_its_fields() -> None:
    assert types("credit-eu.requests") == {
        "request_id": "Nullable(String)",
        "loan_id": "Nullable(Int64)",
        "model": "LowCardinality(Nullable(String))",
        "event_time": "Nullable(DateTime64(3, 'UTC'))",
        "income": "Nullable(Float64)",
        "age": "Nullable(Int64)",
        "version": "Nullable(Int64)",
        "feature_file": "Nullable(Bool)",
        "purpose": "LowCardinality(Nullable(String))",
        "note": "Nullable(String)",
        "region": "LowCardinality(Nullable(String))",
    }


def test_a_prediction_has_its_request_beside_its_own_fields() -> None:
    found = types("credit-eu.predictions")
    assert found["request_id"] == "String"
    assert found["given_request_id"] == "Nullable(String)"
    assert found["event_time"] == "DateTime64(3, 'UTC')"
    assert found["given_event_time"] == "Nullable(DateTime64(3, 'UTC'))"
    assert found["version"] == "Int64"
    assert found["income"] == "Nullable(Float64)"
    assert found["feature_version"] == "Nullable(Int64)"
    assert found["source_offset"] == "Int64"
    assert found["probabilities"] == "Map(LowCardinality(String), Float64)"
    assert found["replaced"] == "Array(Tuple(field String, value Nullable(String), reason String))"
    assert found["explanation"] == "Array(Tuple(feature String, contribution Float64))"
    assert len(found) == len(columns_of(lane_schemas(contract())["credit-eu.predictions"]))


def test_values_are_found_in_records() -> None:
    by_name = {c.name: c.value for c in columns_of(lane_schemas(contract())["credit-eu.predictions"])}
    record = {
        "version": 3,
        "source": {"topic": "t", "partition": 1, "offset": 2},
        "request": {"version": 7, "request_id": None},
        "replaced": [{"field": "a", "value": None, "reason": "missing"}],
        "explanation": None,
        "probabilities": {"a": 0.25},
    }
    assert by_name["version"](record) == 3
    assert by_name["feature_version"](record) == 7
    assert by_name["source_offset"](record) == 2
    assert by_name["replaced"](record) == [("a", None, "missing")]
    assert by_name["explanation"](record) == []
    assert by_name["probabilities"](record) == {"a": 0.25}


def test_every_record_that_ever_may_come_has_a_column() -> None:
    odd = {
        "type": "record",
        "name": "Odd",
        "fields": [
            {"name": "either", "type": ["string", "long"]},
            {"name": "deep", "type": {"type": "array", "items": {"type": "array", "items": "long"}}},
            {
                "name": "maybe",
                "type": [
                    "null",
                    {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": ["null", "long"]}]},
                ],
            },
            {"name": "flags", "type": {"type": "array", "items": "boolean"}},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a"]}},
        ],
    }
    columns = columns_of(odd)
    assert {c.name: c.type for c in columns} == {
        "either": "String",
        "deep": "String",
        "maybe_x": "Nullable(Int64)",
        "flags": "Array(Bool)",
        "kind": "LowCardinality(String)",
    }
    record = {"either": 5, "deep": [[1], []], "maybe": None, "flags": [True], "kind": "a"}
    assert [c.value(record) for c in columns] == ["5", "[[1], []]", None, [True], "a"]


def test_tables_are_made_once_and_gain_columns() -> None:
    server = Server()
    assert len(ensure_tables(server, contract())) == 5
    assert set(server.tables) == set(model_tables(contract()).values())
    assert server.tables["credit_eu_labels"]["grade"] == "LowCardinality(Nullable(String))"
    assert list(server.tables["credit_eu_labels"])[:4] == list(COORDINATES)
    assert ensure_tables(server, contract()) == []
    wider = contract(CONTRACT.replace("context:\n", "  debt: {type: number}\ncontext:\n"))
    assert len(ensure_tables(server, wider)) == 3
    assert server.tables["credit_eu_predictions"]["debt"] == "Nullable(Float64)"
    assert ensure_tables(server, wider) == []
    # What is gone from the contract stays for the rows that have it.
    assert ensure_tables(server, contract()) == []


def test_a_column_of_another_type_is_named() -> None:
    server = Server()
    ensure_tables(server, contract())
    with pytest.raises(
        TableConflict, match=r"credit_eu_requests.income is Nullable\(Float64\).*DROP COLUMN income"
    ):
        ensure_tables(server, contract(CONTRACT.replace("income: {type: number}", "income: {type: boolean}")))


@pytest.mark.parametrize(
    ("wanted", "there", "does"),
    [
        ("Nullable(Int64)", "Nullable(Float64)", True),
        ("Int32", "Nullable(Int64)", True),
        ("Nullable(String)", "LowCardinality(Nullable(String))", True),
        ("LowCardinality(String)", "String", True),
        ("Map(LowCardinality(String), Float64)", "Map(String, Float64)", True),
        ("Nullable(Float64)", "Nullable(Int64)", False),
        ("Nullable(String)", "String", False),
        ("Nullable(Bool)", "Nullable(String)", False),
    ],
)
def test_what_fits(wanted: str, there: str, does: bool) -> None:
    assert fits(wanted, there) is does


def migrated() -> dict[str, dict[str, str]]:
    """The fixed tables as all migrations together make them."""
    server = Server()
    for migration in read_migrations():
        for statement in migration.statements:
            server.command(" ".join(statement.split()) if statement.startswith("ALTER") else statement)
    return server.tables


def test_migrations_make_what_the_sink_writes() -> None:
    tables = migrated()
    for name, topic in CONTROL_RECORDS.items():
        wanted = {column.name: column.type for column in columns_of(control_schema(name))}  # type: ignore[arg-type]
        assert tables[CONTROL_TABLES[topic]] == COORDINATES | wanted
    for layout in (UNREADABLE_LAYOUT, DEAD_LETTER_LAYOUT):
        assert tables[layout.table] == COORDINATES | {column.name: column.type for column in layout.columns}
    assert set(tables) == {*CONTROL_TABLES.values(), UNREADABLE, DEAD_LETTERS}


def test_every_event_table_remembers_tokens() -> None:
    statements = [s for m in read_migrations() for s in m.statements]
    statements += [create_table("t", columns_of(schema)) for schema in lane_schemas(contract()).values()]
    for statement in statements:
        assert "non_replicated_deduplication_window = 10000" in statement
        assert "ORDER BY (_topic, _partition, _offset)" in statement


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"0001_a.sql": "CREATE TABLE IF NOT EXISTS a (x Int8);", "0003_b.sql": ""}, "not numbered"),
        ({"0001_a.sql": "", "0001_b.sql": ""}, "not numbered"),
        ({"1_a.sql": ""}, "no migration"),
        ({"0001_a.sql": "CREATE TABLE a (x Int8);"}, "run again"),
        ({"0001_a.sql": "DROP TABLE a;"}, "run again"),
    ],
)
def test_migrations_that_are_refused(tmp_path: Path, files: dict[str, str], says: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(MigrationError, match=says):
        read_migrations(tmp_path)


def test_statements_are_split_at_line_ends() -> None:
    assert split("-- a; b\nCREATE x ';';\n  -- c\nALTER\n y;\n") == ["CREATE x ';'", "ALTER\n y"]
