"""Clients that people use connect to the local ClickHouse as they are, read every value right, and write."""

from __future__ import annotations

import datetime
import http.client
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import clickhouse_connect
import pytest
import sqlalchemy
from tests.support.clickhouse_drivers import golang, jdbc, node
from tests.support.clickhouse_server import start, token_of

from tailrace.access.credentials import HTTP, OPS, SERVICES, Credentials
from tailrace.local.ports import HOST, free_port

TYPES = {
    "id": "UInt64",
    "name": "Nullable(String)",
    "tags": "Array(String)",
    "scores": "Map(String, Float64)",
    "price": "Decimal(18, 4)",
    "at": "DateTime64(3, 'UTC')",
    "kind": "LowCardinality(String)",
    "ok": "Bool",
    "few": "Nullable(Int32)",
    "many": "Array(Nullable(Int64))",
}
LARGEST = 2**64 - 1
ODD = 2**53 + 1
"""A float would make 2**53 of it."""
FAR = -(2**62) - 1
AT = "2024-05-01T12:30:00.125Z"
ROWS: list[list[Any]] = [
    [
        1,
        "é 'quoted' \\ \t",
        ["a", "b,c", ""],
        {"x": 0.5, "y": -2.0},
        "123.4500",
        AT,
        "a",
        True,
        -7,
        [1, None, FAR],
    ],
    [2, None, [], {}, "-0.0001", "1950-01-01T00:00:00.001Z", "", False, None, []],
    [ODD, "x" * 300, ["z"], {"": 1.5}, "99999999999999.9999", AT, "b", True, 2**31 - 1, [None]],
    [LARGEST, "", ["", ""], {"k": 0.0}, "0.0000", AT, "a", False, 0, [0]],
]


class Server(NamedTuple):
    port: int
    tokens: dict[str, str]

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def ask(self, sql: str, body: str = "") -> str:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        connection.request("POST", "/", sql + body, {"X-ClickHouse-Key": self.tokens[SERVICES]})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == 200, text
        return text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home, port = tmp_path_factory.mktemp("drivers"), free_port()
    process = start(home, port)
    tokens = {SERVICES: token_of(port), OPS: Credentials(home).make(HTTP, OPS)}
    server = Server(port, tokens)
    columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
    server.ask(f"CREATE TABLE typed ({columns}) ENGINE = ReplacingMergeTree ORDER BY id")
    lines = [json.dumps(dict(zip(TYPES, row, strict=True))) for row in ROWS]
    server.ask(
        "INSERT INTO typed SETTINGS date_time_input_format = 'best_effort' FORMAT JSONEachRow\n",
        "\n".join(lines),
    )
    yield server
    process.stop(10)


def written(server: Server, number: int, name: str) -> None:
    """The row that a driver wrote is in the table as it was meant; its number is free again afterwards."""
    row = server.ask(
        f"SELECT name, price, at, kind, ok FROM typed FINAL WHERE id = {number} FORMAT JSONCompactEachRow"
    )
    assert json.loads(row) == [name, 7.25, "2024-05-01 12:30:00.125", "a", True]


def as_text(rows: list[list[Any]]) -> list[list[Any]]:
    """Numbers as the Java program prints them: as text."""
    return [
        [
            *(str(row[0]), row[1], row[2], {k: repr(v) for k, v in row[3].items()}, *row[4:8]),
            None if row[8] is None else str(row[8]),
            [None if value is None else str(value) for value in row[9]],
        ]
        for row in rows
    ]


@pytest.mark.parametrize("compress", ["true", "false", "v1"])
def test_jdbc(server: Server, tmp_path: Path, compress: str) -> None:
    """DBeaver, Metabase, Spark."""
    seen = jdbc(tmp_path).run(server.address, compress, server.tokens)
    assert seen["database"] == "tailrace"
    assert seen["columns"] == TYPES
    assert "typed" in seen["tables"]
    assert seen["rows"] == as_text(ROWS)
    assert (seen["unknown_table"], seen["refused"]) == (60, 497)
    written(server, 2001, "it's \\ jdbc")


@pytest.mark.parametrize("compress", ["true", "false"])
def test_javascript(server: Server, pytestconfig: pytest.Config, compress: str) -> None:
    seen = node(pytestconfig).run(server.address, compress, server.tokens)
    assert seen["database"] == "tailrace"
    rows = [
        [
            *(str(row[0]), row[1], row[2], row[3], Decimal(row[4]), _clickhouse_time(row[5]), *row[6:9]),
            [None if value is None else str(value) for value in row[9]],
        ]
        for row in ROWS
    ]
    for part in ("rows", "document"):
        read = [[row[name] for name in TYPES] for row in seen[part]]
        assert [[*row[:4], Decimal(row[4]), *row[5:]] for row in read] == rows, part
    assert seen["streamed"] == 100_000
    assert (seen["unknown_table"], seen["refused"], seen["alive"]) == (60, 497, True)
    written(server, 2002, "it's \\ node")


@pytest.mark.timeout(900)  # the first builds the program
@pytest.mark.parametrize("method", ["none", "lz4", "zstd", "gzip"])
def test_go(server: Server, pytestconfig: pytest.Config, method: str) -> None:
    """Grafana's data source, and programs by clickhouse-go over HTTP."""
    seen = golang(pytestconfig).run(server.address, method, server.tokens)
    assert seen["database"] == "tailrace"
    assert seen["rows"] == [[str(row[0]), *row[1:]] for row in ROWS]
    assert seen["tables"] == ["typed"]
    assert seen["sum"] == sum(range(300_000))
    assert (seen["unknown_table"], seen["refused"], seen["empty"]) == (60, 497, True)
    written(server, 2003, "it's \\ go")


def _clickhouse_time(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")


def _python_row(row: list[Any]) -> tuple[Any, ...]:
    at = datetime.datetime.fromisoformat(row[5]).replace(tzinfo=None)
    return (*row[:4], Decimal(row[4]), at, *row[6:])


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_clickhouse_connect(server: Server, compress: str | bool) -> None:
    with clickhouse_connect.get_client(
        dsn=f"clickhouse://ops:{server.tokens[OPS]}@{server.address}/tailrace", compress=compress
    ) as client:
        assert client.query("SELECT currentDatabase()").result_rows == [("tailrace",)]
        result = client.query("SELECT * FROM typed WHERE id < 2000 OR id > 9000 ORDER BY id")
        assert result.column_names == tuple(TYPES)
        assert [tuple(row) for row in result.result_rows] == [_python_row(row) for row in ROWS]
        arrow = client.query_arrow("SELECT id, price FROM typed WHERE id > 9000 ORDER BY id")
        assert arrow["id"].to_pylist() == [ODD, LARGEST]
        assert client.query("SELECT 1 WHERE 0").result_rows == []
        assert client.query("SHOW TABLES").result_rows == [("typed",)]


def test_external_data(server: Server) -> None:
    from clickhouse_connect.driver.external import ExternalData

    wanted = ExternalData(
        file_name="wanted.csv", data=b"1,one\n2,two\n", fmt="CSV", structure="id UInt64, word String"
    )
    with clickhouse_connect.get_client(
        dsn=f"clickhouse://ops:{server.tokens[OPS]}@{server.address}/tailrace"
    ) as client:
        rows = client.query(
            "SELECT t.id, word FROM typed AS t JOIN wanted ON t.id = wanted.id ORDER BY id",
            external_data=wanted,
        ).result_rows
        assert rows == [(1, "one"), (2, "two")]


def test_sqlalchemy(server: Server) -> None:
    """Superset, and programs by SQLAlchemy."""
    engine = sqlalchemy.create_engine(f"clickhousedb://ops:{server.tokens[OPS]}@{server.address}/tailrace")
    with engine.connect() as connection:
        inspector = sqlalchemy.inspect(connection)
        assert "typed" in inspector.get_table_names()
        assert [column["name"] for column in inspector.get_columns("typed")] == list(TYPES)
        table = sqlalchemy.Table("typed", sqlalchemy.MetaData(), autoload_with=connection)
        query = sqlalchemy.select(table).where(table.c.id.in_([1, ODD])).order_by(table.c.id)
        assert [tuple(row) for row in connection.execute(query)] == [
            _python_row(ROWS[0]),
            _python_row(ROWS[2]),
        ]
        assert not inspector.has_table("nowhere")
    engine.dispose()
