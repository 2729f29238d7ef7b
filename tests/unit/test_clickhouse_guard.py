"""The local ClickHouse's fences, and where an INSERT's data begins."""

from __future__ import annotations

import pytest

from tailrace.local.clickhouse_bridge import split_insert
from tailrace.local.clickhouse_guard import Guard, Refused

GUARD = Guard(["file", "url", "numbers", "python", "format"], ["file", "lower", "aiGenerate"])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM url('x')",
        "SELECT * FROM URL('x')",
        "SELECT * FROM `url` ('x')",
        "SELECT * FROM \"url\"('x')",
        "SELECT arrayMap(file, ['x'])",
        "SELECT lower(file('x'))",
        "SELECT aiGenerate('x')",
        "SELECT 'a\\'b', file('x')",
        "SELECT 'it''s', file('x')",
        "SELECT 1 INTO OUTFILE 'x'",
        "INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        "ATTACH TABLE t FROM 'x' (a Int8) ENGINE = MergeTree",
        "CREATE TABLE t (a Int8) ENGINE = MergeTree SETTINGS disk = disk(type = local)",
        "SELECT {f:Identifier}",
    ],
)
def test_refused(sql: str) -> None:
    with pytest.raises(Refused):
        GUARD.check(sql, {"f": "file"})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM numbers(3)",
        "SELECT url, python FROM t",
        "SELECT 'file(1) INTO OUTFILE \\'x\\''",
        "SELECT feature_file, profile FROM t",
        "SELECT * FROM format(CSV, '1')",
        "INSERT INTO t (`url`) FORMAT Native",
        "SELECT * FROM {t:Identifier}",
    ],
)
def test_passed(sql: str) -> None:
    GUARD.check(sql, {"t": "credit_requests"})


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
    found = split_insert(text)
    assert found is not None
    assert (found.statement, found.data_format, text[found.data_at :]) == (statement, data_format, data)


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
