"""What official clients send when they connect and look around gets the answers that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.clickhouse_walls import WALLS, WalledEngine

from tailrace.confinement import landlock

STATEMENTS = [
    tuple(line.split("\t", 1))
    for line in Path(__file__)
    .parents[1]
    .joinpath("support", "clickhouse_client_statements.txt")
    .read_text()
    .splitlines()
    if not line.startswith("#")
]
SETTINGS = {  # beside the statement, by clickhouse-connect, dbt, JDBC, clickhouse-go, Grafana, @clickhouse/client
    "date_time_input_format": "best_effort",
    "cast_string_to_dynamic_use_inference": "1",
    "max_block_size": "1000",
    "mutations_sync": "2",
    "insert_distributed_sync": "1",
    "extremes": "0",
    "max_result_rows": "100000",
    "max_execution_time": "30",
    "network_compression_method": "lz4",
    "network_zstd_compression_level": "3",
    "cancel_http_readonly_queries_on_client_close": "1",
    "limit": "1000",
    "additional_table_filters": "{'t' : 'a > 0'}",
    "insert_deduplication_token": "x",
    "async_insert": "0",
}
TABLE = """CREATE TABLE tailrace.t (
    a Int64, c LowCardinality(Nullable(String)), d DateTime, m Map(String, Float64), x Float64, file Nullable(Float64)
) ENGINE = ReplacingMergeTree ORDER BY a"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WalledEngine]:
    walls = WALLS if landlock.version() else WALLS[:2]
    engine = WalledEngine(tmp_path_factory.mktemp("clients"), walls)
    for sql in (TABLE, "CREATE VIEW tailrace.v AS SELECT 1"):
        assert engine.ask(sql, "services").code == 0, sql
    yield engine
    engine.close()


@pytest.mark.parametrize("user", ["ops", "services"])
@pytest.mark.parametrize(("expected", "sql"), STATEMENTS)
def test_what_clients_send(engine: WalledEngine, user: str, expected: str, sql: str) -> None:
    answer = engine.ask(sql, user, database="tailrace")
    if expected == "ok":
        assert answer.code == 0, answer.text
    elif expected != "refused":
        assert answer.code == int(expected), answer.text
    elif user == "ops":
        assert answer.code in (497, 62), answer.text
        assert "Not enough privileges" not in answer.text, "the engine said it, not a sentence"


def test_settings_beside_the_statement(engine: WalledEngine) -> None:
    answer = engine.ask("SELECT a FROM t", "ops", SETTINGS, database="tailrace")
    assert answer.code == 0, answer.text


def test_what_is_allowed_is_shown_as_changeable(engine: WalledEngine) -> None:
    """clickhouse-connect sends no setting that is marked readonly in system.settings."""
    wanted = ", ".join(f"'{name}'" for name in (*SETTINGS, "readonly", "max_threads", "join_use_nulls"))
    marked = engine.ask(f"SELECT name FROM system.settings WHERE readonly AND name IN ({wanted})")
    assert marked == (0, "")
    assert engine.ask("SELECT value FROM system.settings WHERE name = 'readonly'") == (0, "0\n")


def test_lists_are_those_of_the_installed_engine(engine: WalledEngine) -> None:
    """Nothing on a list is unknown to the engine, and settings are all on one of the two."""
    from tailrace.local.clickhouse_allowed import names

    def known(table: str) -> set[str]:
        return set(engine.ask(f"SELECT name FROM system.{table}").text.split())

    assert names("settings") | names("settings_refused") == known("settings")
    assert not names("settings") & names("settings_refused")
    assert names("functions") <= known("functions")
    assert names("aggregates") <= names("functions")
    assert names("formats") <= known("formats")
    higher = engine.ask("SELECT name FROM system.functions WHERE higher_order").text.split()
    assert names("higher_order") == set(higher)


@pytest.mark.parametrize("user", ["ops", "services"])
def test_every_listed_format_is_accepted(engine: WalledEngine, user: str) -> None:
    from tailrace.local.clickhouse_allowed import names

    for name in names("formats"):
        answer = engine.ask(f"SELECT 1 AS a FORMAT {name}", user)
        assert answer.code in (0, 36, 73, 399), (name, answer.text)  # for input only, or for other columns
