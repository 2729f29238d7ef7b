"""ClickHouse's tables: columns by schema, what fits into what, and the migrations that make the fixed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tailrace.clickhouse.migrations import MigrationError, read_migrations, split
from tailrace.clickhouse.tables import (
    CONTROL_TABLES,
    COORDINATES,
    DEAD_LETTERS,
    UNREADABLE,
    TableConflict,
    TimeOutOfRange,
    columns_of,
    create_table,
    ensure_tables,
    fits,
    model_tables,
)
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, control_schema
from tailrace.contracts.records.schemas import lane_schemas
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
        "file": "Nullable(Bool)",
        "purpose": "LowCardinality(Nullable(String))",
        "note": "Nullable(String)",
        "region": "LowCardinality(Nullable(String))",
    }


def test_a_prediction_has_its_request_beside_its_own_fields() -> None:
    types_of = types("credit-eu.predictions")
    assert types_of["request_id"] == "String"
    assert types_of["given_request_id"] == "Nullable(String)"
    assert types_of["event_time"] == "DateTime64(3, 'UTC')"
    assert types_of["given_event_time"] == "Nullable(DateTime64(3, 'UTC'))"
    assert types_of["version"] == "Int64"
    assert types_of["income"] == "Nullable(Float64)"
    assert types_of["feature_version"] == "Nullable(Int64)"
    assert types_of["source_offset"] == "Int64"
    assert types_of["probabilities"] == "Map(LowCardinality(String), Float64)"
    assert types_of["replaced"] == "Array(Tuple(field String, value Nullable(String), reason String))"
    assert types_of["explanation"] == "Array(Tuple(feature String, contribution Float64))"
    assert len(types_of) == len(columns_of(lane_schemas(contract())["credit-eu.predictions"]))


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


def test_an_outcome_has_its_prediction_and_its_request_beside_its_own_fields() -> None:
    text = CONTRACT.replace("  purpose:", "  label: {type: number}\n  state: {type: integer}\n  purpose:")
    schema = lane_schemas(contract(text))["credit-eu.outcomes"]
    columns = {column.name: column for column in columns_of(schema)}
    types_of = {name: column.type for name, column in columns.items()}
    order = [list(types_of).index(name) for name in ("outcome_id", "champion_action", "key", "income")]
    assert order == sorted(order), "own fields, the prediction's, the request's"
    assert types_of["label"] == "Nullable(String)"
    assert types_of["feature_label"] == "Nullable(Float64)"
    assert types_of["state"] == "LowCardinality(String)"
    assert types_of["feature_state"] == "Nullable(Int64)"
    assert types_of["given_request_id"] == "Nullable(String)"
    assert types_of["file"] == "Nullable(Bool)"
    # The second and later places of a named type only name it.
    for place in ("label_source", "action_source", "source"):
        assert {n for n in types_of if n.startswith(place)} == {
            f"{place}_{part}" for part in ("topic", "partition", "offset")
        }
    assert types_of["action_source_offset"] == "Nullable(Int64)"
    assert types_of["source_offset"] == "Int64"
    record = {
        "label": "a",
        "state": "labelled",
        "action_source": None,
        "label_source": {"topic": "t", "partition": 1, "offset": 2},
        "champion": {"score": 0.5},
        "prediction": {"version": 3, "request": {"label": 0.5, "state": 7, "file": True, "version": 9}},
    }
    wanted = {
        "label": "a", "state": "labelled", "action_source_offset": None, "label_source_offset": 2,
        "champion_score": 0.5, "version": 3, "feature_label": 0.5, "feature_state": 7, "file": True,
        "feature_version": 9,
    }  # fmt: skip
    assert {name: columns[name].value(record) for name in wanted} == wanted


def test_what_a_prediction_says_is_told_apart_from_what_the_outcome_says() -> None:
    inner = {"type": "record", "name": "Prediction", "fields": [{"name": "state", "type": "long"}]}
    outer = {
        "type": "record",
        "name": "Outcome",
        "fields": [{"name": "prediction", "type": inner}, {"name": "state", "type": "string"}],
    }
    columns = columns_of(outer)
    assert {c.name: c.value({"state": "a", "prediction": {"state": 1}}) for c in columns} == {
        "state": "a",
        "prediction_state": 1,
    }


def test_a_feature_may_be_called_as_a_nested_record_is() -> None:
    text = CONTRACT.replace(
        "  purpose:", "  request: {type: number}\n  prediction: {type: number}\n  purpose:"
    )
    for topic in ("requests", "predictions", "outcomes"):
        types_of = {c.name: c.type for c in columns_of(lane_schemas(contract(text))[f"credit-eu.{topic}"])}
        assert types_of["request"] == types_of["prediction"] == "Nullable(Float64)"


def test_reports_keep_their_structure() -> None:
    types_of = {c.name: c for c in columns_of(control_schema("DriftReport"))}  # type: ignore[arg-type]
    assert types_of["tests"].type.endswith(
        "histogram Array(Tuple(label String, count Int64, reference Float64))))"
    )
    test = {
        "feature": "income", "test": "ks", "statistic": 0.5, "p_value": None, "q_value": None, "effect": 0.5,
        "n": 3, "reference_n": 9, "drifted": True,
        "histogram": [{"label": "1", "count": 3, "reference": 1.0}],
    }  # fmt: skip
    assert types_of["tests"].value({"tests": [test]}) == [
        ("income", "ks", 0.5, None, None, 0.5, 3, 9, True, [("1", 3, 1.0)])
    ]


@pytest.mark.parametrize("time", [10_413_792_000_000, -2_208_988_800_001, 2**60])
def test_times_that_clickhouse_does_not_have_are_never_bent(time: int) -> None:
    columns = {c.name: c.value for c in columns_of(control_schema("TrainingRun"))}  # type: ignore[arg-type]
    trigger = {"kind": "drift", "id": "a", "at": time, "reason": ""}
    with pytest.raises(TimeOutOfRange, match=f"{time} ms since 1970 is before 1900 or after 2299"):
        columns["at"]({"at": time})
    with pytest.raises(TimeOutOfRange):
        columns["triggers"]({"triggers": [trigger]})
    assert columns["at"]({"at": 10_413_791_999_999}) == 10_413_791_999_999


def test_every_record_that_ever_may_come_has_a_column() -> None:
    odd = {
        "type": "record",
        "name": "Odd",
        "fields": [
            {"name": "either", "type": ["string", "long"]},
            {"name": "deep", "type": {"type": "array", "items": {"type": "array", "items": "long"}}},
            {"name": "maps", "type": {"type": "array", "items": {"type": "map", "values": "long"}}},
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
        "deep": "Array(Array(Int64))",
        "maps": "String",
        "maybe_x": "Nullable(Int64)",
        "flags": "Array(Bool)",
        "kind": "LowCardinality(String)",
    }
    record = {
        "either": 5, "deep": [[1], []], "maps": [{"a": 1}], "maybe": None, "flags": [True], "kind": "a",
    }  # fmt: skip
    assert [c.value(record) for c in columns] == ["5", [[1], []], '[{"a": 1}]', None, [True], "a"]


def test_tables_are_made_once_and_gain_columns() -> None:
    server = Server()
    assert len(ensure_tables(server, contract())) == 6
    assert set(server.tables) == set(model_tables(contract()).values())
    assert server.tables["credit_eu_labels"]["grade"] == "LowCardinality(Nullable(String))"
    assert list(server.tables["credit_eu_labels"])[:4] == list(COORDINATES)
    assert ensure_tables(server, contract()) == []
    wider = contract(CONTRACT.replace("context:\n", "  debt: {type: number}\ncontext:\n"))
    assert len(ensure_tables(server, wider)) == 4
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
    ("wanted", "existing", "does"),
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
def test_what_fits(wanted: str, existing: str, does: bool) -> None:
    assert fits(wanted, existing) is does


def migrated() -> dict[str, dict[str, str]]:
    """The fixed tables as all migrations together make them."""
    server = Server()
    for migration in read_migrations():
        for statement in migration.statements:
            if statement.startswith("CREATE VIEW"):
                continue
            server.command(" ".join(statement.split()) if statement.startswith("ALTER") else statement)
    return server.tables


def test_migrations_make_what_the_sink_writes() -> None:
    tables = migrated()
    for name, topic in CONTROL_RECORDS.items():
        if topic in CONTROL_TABLES:
            wanted = {column.name: column.type for column in columns_of(control_schema(name))}  # type: ignore[arg-type]
            assert tables[CONTROL_TABLES[topic]] == COORDINATES | wanted
    for layout in (UNREADABLE_LAYOUT, DEAD_LETTER_LAYOUT):
        assert tables[layout.table] == COORDINATES | {column.name: column.type for column in layout.columns}
    assert set(tables) == {*CONTROL_TABLES.values(), UNREADABLE, DEAD_LETTERS}
    assert [name for name, _ in views()] == ["model_evaluations"]


def views() -> list[tuple[str, str]]:
    statements = [s for m in read_migrations() for s in m.statements if s.startswith("CREATE VIEW")]
    return [(statement.split("`")[1], statement) for statement in statements]


def test_no_view_looks_like_a_table_of_events() -> None:
    """Whoever counts rows by topic and offset would count them twice."""
    for _, statement in views():
        assert "_topic" not in statement.split("FROM")[0]


def test_every_event_table_remembers_tokens() -> None:
    statements = [s for m in read_migrations() for s in m.statements if s.startswith("CREATE TABLE")]
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
