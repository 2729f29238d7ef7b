"""The local ClickHouse's lists, on canonical text; and where an INSERT's data begins."""

from __future__ import annotations

import pytest

from tailrace.access.credentials import OPS, SERVICES
from tailrace.local.clickhouse_bridge import split_insert
from tailrace.local.clickhouse_guard import Guard
from tailrace.local.clickhouse_refused import StatementRefused


def parse(expression: str) -> str:
    """An engine's parser that finds one statement in everything."""
    return {
        "concat('SELECT ', 'file(1)')": "SELECT file(1)",
        "concat('SELECT ', 'a > 1')": "SELECT a > 1",
        "concat('SELECT ', 't')": "SELECT t",
        "concat('CREATE TABLE t (', 'a String', ') ENGINE = Null')": "CREATE TABLE t (`a` String) ENGINE = Null",
        "concat('CREATE TABLE t (', 'a String DEFAULT file(1)', ') ENGINE = Null')": (
            "CREATE TABLE t (`a` String DEFAULT file(1)) ENGINE = Null"
        ),
    }[expression]


GUARD = Guard(["file", "url", "numbers", "lower", "aiGenerate", "newlyInvented"], parse)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM url('x')",
        "SELECT * FROM URL('x')",
        "SELECT newlyInvented(1)",
        "SELECT notEvenKnown(1)",
        "SELECT arrayMap(file, ['x'])",
        "SELECT arrayFold(FILE AS f, ['x'])",
        "SELECT lower(file('x'))",
        "SELECT * APPLY file FROM t",
        "SELECT * APPLY aiGenerate('x') FROM t",
        "SELECT * APPLY y -> file(y) FROM t",
        "SELECT 'a\\'b', file('x')",
        "SELECT 'it\\'s', file('x')",
        "SELECT `a``b`, file('x')",
        "SELECT 1 INTO OUTFILE 'x'",
        "SELECT 1 FORMAT Template",
        "SELECT 1 FORMAT NewFormat",
        "SELECT 1 SETTINGS format_template_row = 'x'",
        "SELECT 1 SETTINGS max_result_rows = 1, dialect = 'prql'",
        "SELECT 1 SETTINGS max_result_rows = {x:UInt8}, no_such_setting = 1",
        "SELECT 1 SETTINGS additional_table_filters = {'t':'file(1)'}",
        "SELECT 1 SETTINGS additional_table_filters = {x:String}",
        "SELECT * FROM format(AvroConfluent, 'x')",
        "SELECT * FROM format('AvroConfluent', 'x')",
        "SELECT * FROM format(concat('Avro', 'Confluent'), 'x')",
        "WITH 'AvroConfluent' AS CSV SELECT * FROM format(CSV, 'x')",
        "SELECT * FROM format(CSV, 'a String DEFAULT file(1)', 'x')",
        "WITH 'a String' AS s SELECT * FROM format(CSV, s, 'x')",
        "SELECT * FROM `values`(concat('a', 'b'), 1)",
        "SELECT arrayReduce('groupFormat', [1])",
        "SELECT arrayReduce({x:String}, [1])",
        "SELECT {f:Identifier}",
        "SELECT * FROM `/etc/hostname`",
        "SELECT 1 PARALLEL WITH SELECT 2",
        "SHOW CREATE USER",
        "SHOW ACCESS",
        "SET ROLE tailrace_services",
        "EXECUTE AS x SELECT 1",
        "EXPLAIN CREATE TABLE t (`a` Int8) ENGINE = Memory",
        "KILL QUERY WHERE user = 'x' ASYNC",
        "KILL QUERY WHERE (query_id = 'x') AND 1 ASYNC",
        "SYSTEM SHUTDOWN",
        'SELECT "a"',
    ],
)
@pytest.mark.parametrize("user", [OPS, SERVICES])
def test_refused(sql: str, user: str) -> None:
    with pytest.raises(StatementRefused):
        GUARD.check(sql, user, {"f": "file"})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM numbers(3)",
        "SELECT url, file, t.file, feature_file FROM t",
        "SELECT max(file), sumIf(a, file), quantilesTimingOrNullIf(0.5)(a, b) FROM t",
        "SELECT 'file(1) INTO OUTFILE \\'x\\'', 'it''s' AS `file (1)`",
        "SELECT 1 AS `a/b`",
        "SELECT * FROM format(CSV, '1')",
        "SELECT * FROM format(CSV, 'a String', '1')",
        "SELECT format('{} of {}', a, b)",
        "SELECT * FROM {t:Identifier} WHERE a = {s:String} SETTINGS max_execution_speed = -1 FORMAT `Null`",
        "SELECT 1 SETTINGS additional_table_filters = {'t':'a > 1'}, max_result_rows = DEFAULT",
        "SELECT arrayMap(lower, ['x']), arrayMap(x -> (x + 1), [1]), * APPLY lower, arrayReduce('sumIf', [1])",
        "KILL QUERY WHERE query_id = 'x' ASYNC",
        "SHOW TABLES FROM x LIKE 'a%'",
        "USE tailrace",
    ],
)
@pytest.mark.parametrize("user", [OPS, SERVICES])
def test_passed(sql: str, user: str) -> None:
    GUARD.check(sql, user, {"t": "credit_requests"})


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t (a, `url`) SETTINGS insert_deduplication_token = 'x' FORMAT Native",
        "CREATE DATABASE IF NOT EXISTS tailrace",
        (
            "CREATE TABLE IF NOT EXISTS t (`a` Array(Tuple(b String))) ENGINE = ReplacingMergeTree ORDER BY (a) "
            "SETTINGS non_replicated_deduplication_window = 10"
        ),
        "CREATE VIEW IF NOT EXISTS v AS SELECT 1",
        "ALTER TABLE t (ADD COLUMN IF NOT EXISTS `a` Decimal(1, 2)), (ADD COLUMN IF NOT EXISTS `b` Int8)",
        "ALTER TABLE t (MODIFY COMMENT 'rebuilt 2026-11-30 09:01:12')",
        "ALTER TABLE t (DETACH PART 'all_1_1_0')",
        "CHECK TABLE t SETTINGS check_query_single_value_result = 0",
    ],
)
def test_services_write_and_ops_do_not(sql: str) -> None:
    GUARD.check(sql, SERVICES, {})
    with pytest.raises(StatementRefused, match="only reads"):
        GUARD.check(sql, OPS, {})


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t SELECT 1",
        "INSERT INTO FUNCTION file('x') FORMAT CSV",
        "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        "CREATE TABLE t (`a` Int8) ENGINE = File(CSV, 'x')",
        "CREATE TABLE t (`a` Int8) ENGINE = ReplacingMergeTree ORDER BY a SETTINGS storage_policy = 'x'",
        "CREATE TABLE t (`a` Int8) ENGINE = ReplacingMergeTree ORDER BY a SETTINGS max_threads = 1",
        "CREATE TABLE t (`a` String DEFAULT file('x')) ENGINE = ReplacingMergeTree ORDER BY a",
        "CREATE TABLE t ENGINE = ReplacingMergeTree ORDER BY a AS SELECT 1",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE VIEW v DEFINER = CURRENT_USER SQL SECURITY DEFINER AS SELECT 1",
        "CREATE DATABASE d ENGINE = MySQL('x')",
        "ALTER TABLE t (ADD COLUMN `a` Int8), (DROP COLUMN b)",
        "ALTER TABLE t (DELETE WHERE 1)",
        "ALTER TABLE t (DETACH PARTITION tuple())",
        "ALTER TABLE t (DROP PART 'all_1_1_0')",
        "ALTER TABLE t (DETACH PART 'all_1_1_0'), (DELETE WHERE 1)",
        "ALTER TABLE t (MODIFY COMMENT 'it\\'s'), (DROP COLUMN a)",
        "ALTER TABLE t (MODIFY COMMENT 'x'), (DETACH PARTITION ALL)",
        "CHECK TABLE t",
        "DROP TABLE t",
        "TRUNCATE TABLE t",
    ],
)
def test_services_do_what_our_own_code_does_and_nothing_else(sql: str) -> None:
    with pytest.raises(StatementRefused):
        GUARD.check(sql, SERVICES, {})


def test_settings_beside_a_statement() -> None:
    GUARD.check_settings({"max_threads": "1", "additional_table_filters": "{'t' : 'a > 1'}", "readonly": "2"})
    for name, value in {
        "format_schema": "x",
        "additional_table_filters": "{'t' : 'file(1)'}",
        "additional_result_filter": "file(1)",
        "no_such_setting": "1",
    }.items():
        with pytest.raises(StatementRefused):
            GUARD.check_settings({name: value})
    with pytest.raises(StatementRefused, match="map of strings"):
        GUARD.check_settings({"additional_table_filters": "map('t', concat('fi', 'le(1)'))"})


@pytest.mark.parametrize(
    ("text", "statement", "data_format", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x00\n", "INSERT INTO t ", "Native", b"\x00\n"),
        (
            b'insert into t (`a b`, "FORMAT") format CSV 1,2',
            'insert into t (`a b`, "FORMAT") ',
            "CSV",
            b"1,2",
        ),
        (b"/* x */ -- y\nINSERT INTO t FORMAT TSV\r\n1", "/* x */ -- y\nINSERT INTO t ", "TSV", b"1"),
        (
            b"INSERT INTO t SETTINGS a = 'FORMAT x' FORMAT CSV\n",
            "INSERT INTO t SETTINGS a = 'FORMAT x' ",
            "CSV",
            b"",
        ),
        (b"INSERT INTO t VALUES (1), (2)", "INSERT INTO t ", "Values", b" (1), (2)"),
    ],
)
def test_where_data_begins(text: bytes, statement: str, data_format: str, data: bytes) -> None:
    insert = split_insert(text)
    assert insert is not None
    assert (insert.statement, insert.data_format, text[insert.data_at :]) == (statement, data_format, data)


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 1 FORMAT CSV",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"",
        b"INSERT INTO t WITH 1 AS x SELECT x",
    ],
)
def test_no_data_behind_it(text: bytes) -> None:
    assert split_insert(text) is None
