"""The local ClickHouse's HTTP interface is a server's: where parameters stand, how answers are packed, statuses."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes, urlencode

import pytest
from tests.support.clickhouse_server import start, token_of

from tailrace.access.credentials import HTTP, OPS, SERVICES, Credentials
from tailrace.local.clickhouse_blocks import BlockReader, compress
from tailrace.local.clickhouse_statuses import STATUSES
from tailrace.local.ports import HOST, free_port

MARK = "a-boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={MARK}"}


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def code(self) -> int:
        return int(self.headers["X-ClickHouse-Exception-Code"] or 0)


class Server(NamedTuple):
    port: int
    tokens: Mapping[str, str]

    def ask(
        self,
        body: str | bytes = b"",
        headers: Mapping[str, str] | None = None,
        user: str = OPS,
        method: str = "POST",
        query: str | None = None,
        **parameters: str,
    ) -> Answer:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        target = f"/?{urlencode(parameters) if query is None else query}"
        connection.request(method, target, body, {"X-ClickHouse-Key": self.tokens[user], **(headers or {})})
        answer = connection.getresponse()
        read = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return read


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home, port = tmp_path_factory.mktemp("protocol"), free_port()
    process = start(home, port)
    server = Server(port, {SERVICES: token_of(port), OPS: Credentials(home).make(HTTP, OPS)})
    table = "CREATE TABLE t (a Int64, b String) ENGINE = ReplacingMergeTree ORDER BY a"
    assert server.ask(table, user=SERVICES).status == 200
    yield server
    process.stop(10)


def form(fields: Mapping[str, str], files: Mapping[str, str]) -> str:
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields.items()
    ]
    parts += [
        f'Content-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n{data}'
        for name, data in files.items()
    ]
    return "".join(f"--{MARK}\r\n{part}\r\n" for part in parts) + f"--{MARK}--\r\n"


def test_headers_count_where_the_url_says_nothing(server: Server) -> None:
    headers = {
        "X-ClickHouse-Database": "system",
        "X-ClickHouse-Format": "JSONEachRow",
        "X-ClickHouse-Query-Id": "from-a-header",
        "X-ClickHouse-User": "ops",
    }
    sql = "SELECT currentDatabase() AS d"
    answer = server.ask(sql, headers)
    assert (answer.body, answer.headers["X-ClickHouse-Query-Id"]) == (b'{"d":"system"}\n', "from-a-header")
    assert answer.headers["X-ClickHouse-Format"] == "JSONEachRow"
    answer = server.ask(sql, headers, database="default", default_format="CSV", query_id="from-the-url")
    assert (answer.body, answer.headers["X-ClickHouse-Query-Id"]) == (b'"default"\n', "from-the-url")
    assert server.ask(sql).body == b"tailrace\n"


@pytest.mark.parametrize("http_encoding", ["", "gzip"])
def test_compressed_blocks(server: Server, http_encoding: str) -> None:
    import gzip

    sql = "SELECT number, toString(number) FROM numbers(200000) FORMAT CSV"
    plain = server.ask(sql).body
    packed = server.ask(
        sql,
        {"Accept-Encoding": http_encoding},
        compress="1",
        enable_http_compression="1" if http_encoding else "0",
    )
    body = gzip.decompress(packed.body) if http_encoding else packed.body
    reader = BlockReader()
    assert b"".join(reader(body)) == plain
    reader.end()
    assert len(packed.body) < len(plain)
    assert server.ask("SELECT 1 WHERE 0", compress="1").body == b""
    refused = server.ask("SELECT * FROM nowhere", compress="1")
    assert refused.body.startswith(b"Code: 60. DB::Exception: ")


def test_compressed_blocks_come_in(server: Server) -> None:
    insert = urlencode({"query": "INSERT INTO t FORMAT CSV", "decompress": "1"})
    body = compress(b"1,one\n2,t") + compress(b"wo\n")
    assert server.ask(body, user=SERVICES, query=insert).status == 200
    assert server.ask("SELECT * FROM t FINAL ORDER BY a").body == b"1\tone\n2\ttwo\n"
    statement = compress(b"SELECT count() FROM t FINAL")
    assert server.ask(statement, decompress="1").body == b"2\n"
    for broken, code in ((body[:-1], 33), (b"x" + body[1:], 40)):
        answer = server.ask(broken, user=SERVICES, query=insert)
        assert (answer.status, answer.code) == (500, code)
    assert server.ask("SELECT count() FROM t FINAL").body == b"2\n"


def test_native_for_a_version(server: Server) -> None:
    """Of the three: plain, with block information, and with the byte for the serialization."""
    information = bytes.fromhex("01 00 02 ff ff ff ff 00")
    sql = "SELECT toUInt8(7) AS a, 'x' AS b FORMAT Native"
    head, rest = b"\x02\x01\x01a\x05UInt8", b"\x07\x01b\x06String"
    assert server.ask(sql).body == head + rest + b"\x01x"
    assert server.ask(sql, client_protocol_version="54405").body == information + head + rest + b"\x01x"
    expected = information + head + b"\0" + rest + b"\0\x01x"
    assert server.ask(sql, client_protocol_version="54454").body == expected
    large = server.ask(
        "SELECT number FROM numbers(200000) FORMAT Native", client_protocol_version="54460"
    ).body
    assert large.count(information + b"\x01") == len(large.split(b"\x06number\x06UInt64\0")) - 1 > 1
    assert struct.pack("<Q", 199_999) in large
    answer = server.ask("SELECT uniqState(1) AS a, 1 AS b FORMAT Native", client_protocol_version="54460")
    assert (answer.status, answer.code) == (501, 48)
    assert b"AggregateFunction(uniq, UInt8) cannot be written" in answer.body
    answer = server.ask("SELECT 1", client_protocol_version="new")
    assert (answer.status, answer.code) == (400, 36)


@pytest.mark.parametrize(
    ("sql", "parameters", "status", "code"),
    [
        ("SELECT * FROM nowhere", {}, 404, 60),
        ("SELECT * FROM nowhere", {"database": "default"}, 404, 60),
        ("SELECT * FROM default.nowhere", {}, 404, 60),
        ("SELECT * FROM tailrace.nowhere", {}, 404, 60),
        ("SELECT 1", {"database": "nowhere"}, 404, 81),
        ("SELECT 1", {"no_such_setting": "1"}, 404, 115),
        ("SELECT 1 FORMAT Nowhere", {}, 404, 73),
        ("SELECT nowhere FROM t", {}, 404, 47),
        ("SELEKT 1", {}, 400, 62),
        ("DROP TABLE t", {}, 403, 497),
        ("SELECT * FROM url('http://127.0.0.1:1', 'CSV')", {}, 403, 497),
        ("SELECT count() FROM numbers(1000000000000)", {"max_execution_time": "1"}, 408, 159),
        ("SELECT throwIf(1)", {}, 500, 395),
        ("SELECT 1", {"session_id": "s", "session_check": "1"}, 500, 372),
        ("CREATE TEMPORARY TABLE x (a Int8)", {"session_id": "s"}, 500, 372),
        ("SET max_result_rows = 1", {"session_id": "s"}, 500, 372),
        ("USE system", {"session_id": "s"}, 500, 372),
    ],
)
def test_errors_have_a_servers_status(
    server: Server, sql: str, parameters: dict[str, str], status: int, code: int
) -> None:
    answer = server.ask(sql, **parameters)
    assert (answer.status, answer.code) == (status, code), answer.body
    assert answer.body.count(b"DB::Exception") == 1, "messages do not nest"
    assert answer.body.count(b"(version ") == 1
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_statuses_are_of_these_errors(server: Server) -> None:
    """The codes of the table are those of the names that a server's table has."""
    names = {
        401: "REQUIRED_PASSWORD",
        403: "UNKNOWN_USER WRONG_PASSWORD AUTHENTICATION_FAILED SET_NON_GRANTED_ROLE ACCESS_DENIED",
        404: "UNKNOWN_TABLE UNKNOWN_FUNCTION UNKNOWN_IDENTIFIER UNKNOWN_TYPE UNKNOWN_STORAGE UNKNOWN_DATABASE "
        "UNKNOWN_SETTING UNKNOWN_DIRECTION_OF_SORTING UNKNOWN_AGGREGATE_FUNCTION UNKNOWN_FORMAT "
        "UNKNOWN_DATABASE_ENGINE UNKNOWN_TYPE_OF_QUERY UNKNOWN_ROLE",
        408: "TIMEOUT_EXCEEDED",
        411: "HTTP_LENGTH_REQUIRED",
        413: "QUERY_IS_TOO_LARGE",
        415: "UNSUPPORTED_MEDIA_TYPE",
        501: "NOT_IMPLEMENTED",
        503: "SOCKET_TIMEOUT CANNOT_OPEN_FILE CANNOT_SCHEDULE_TASK",
    }
    codes = [code for status in STATUSES if status != 400 for code in STATUSES[status]]
    sql = f"SELECT c, errorCodeToName(c) FROM (SELECT arrayJoin({codes}) AS c) FORMAT JSONCompactEachRow"
    named = dict(json.loads(line) for line in server.ask(sql).body.splitlines())
    for status, expected in names.items():
        assert {named[code] for code in STATUSES[status]} == set(expected.split()), status


@pytest.mark.parametrize(
    ("answer_format", "media_type"),
    [
        ("TabSeparated", "text/tab-separated-values; charset=UTF-8"),
        ("CSVWithNames", "text/csv; charset=UTF-8; header=present"),
        ("JSON", "application/json; charset=UTF-8"),
        ("jsoneachrow", "application/x-ndjson; charset=UTF-8"),
        ("XML", "application/xml; charset=UTF-8"),
        ("Vertical", "text/plain; charset=UTF-8"),
        ("Native", "application/octet-stream"),
    ],
)
def test_the_content_type_names_the_format(server: Server, answer_format: str, media_type: str) -> None:
    for answer in (
        server.ask(f"SELECT 1 FORMAT {answer_format} SETTINGS max_threads = 1"),
        server.ask("SELECT 1", default_format=answer_format),
        server.ask(f"SELECT number FROM numbers(1000000) FORMAT {answer_format}"),
    ):
        assert answer.headers["Content-Type"] == media_type
        assert answer.headers["X-ClickHouse-Format"] == answer_format


def test_the_summary_says_what_was_read(server: Server) -> None:
    for parameters in ({}, {"default_format": "Native", "client_protocol_version": "54460"}):
        answer = server.ask("SELECT count() FROM numbers(1000000)", **parameters)
        summary = json.loads(answer.headers["X-ClickHouse-Summary"])
        assert (summary["read_rows"], summary["result_rows"]) == ("1000000", "1")
        assert summary["read_bytes"] == "8000000"


def test_any_bytes_in_strings(server: Server) -> None:
    assert server.ask(b"SELECT '\xff\xfe', length('\x80') -- \xc3").body == b"\xff\xfe\t1\n"
    url = "query=" + quote_from_bytes(b"SELECT '\xff', {p:String}") + "&param_p=" + quote_from_bytes(b"\xfe")
    assert server.ask(query=url, method="GET").body == b"\xff\t\xfe\n"
    insert = b"INSERT INTO t SETTINGS log_comment = '\xff' FORMAT CSV\n9,\xff\n"
    assert server.ask(insert, user=SERVICES).status == 200
    assert server.ask(b"SELECT b FROM t FINAL WHERE b = '\xff' FORMAT CSV").body == b'"\xff"\n'
    answer = server.ask(b"SELECT file('\xff')")
    assert (answer.status, answer.code) == (403, 497)


def test_a_head_writes_nothing(server: Server) -> None:
    query = urlencode({"query": "CREATE DATABASE made_by_head"})
    assert server.ask(user=SERVICES, method="HEAD", query=query).code == 164
    assert server.ask(user=SERVICES, method="GET", query=query).code == 164
    assert server.ask(user=SERVICES, method="GET", query=f"{query}&readonly=0").code == 164
    assert server.ask("EXISTS DATABASE made_by_head").body == b"0\n"
    assert server.ask(method="HEAD", query=urlencode({"query": "SELECT 1"})).status == 200


def test_a_form_has_settings_and_external_data(server: Server) -> None:
    fields = {
        "query": "SELECT *, getSetting('max_block_size') FROM x ORDER BY a",
        "max_block_size": "7",
        "default_format": "CSV",
        "x_format": "CSV",
        "x_structure": "a Int8, b Nullable(String)",
    }
    assert server.ask(form(fields, {"x": "2,\\N\n1,one\n"}), FORM).body == b'1,"one",7\n2,\\N,7\n'
    query = {
        "query": "SELECT _1, _2 FROM x JOIN y ON _1 = k",
        "x_types": "Int8,Decimal(9, 2)",
        "y_structure": "k Int8",
    }
    assert (
        server.ask(form({}, {"x": "1\t0.5\n2\t1\n", "y": "2\n"}), FORM, query=urlencode(query)).body
        == b"2\t1\n"
    )
    # It ends with its statement.
    assert server.ask("SELECT * FROM x").code == 60


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 36),
        ({"x_structure": "a Int8 DEFAULT length(file('/etc/hostname'))"}, 497),
        ({"x_structure": "a Int8) ENGINE = File(CSV) --"}, 497),
        ({"x_structure": "a Int8) ENGINE = Log --"}, 497),
        ({"x_structure": "a Int8", "x_format": "Protobuf"}, 497),
        ({"x_structure": "a Int8", "x_format": "JSONEachRow"}, 26),
    ],
)
def test_external_data_that_is_refused(server: Server, fields: dict[str, str], code: int) -> None:
    answer = server.ask(form({"query": "SELECT * FROM x", **fields}, {"x": "{]\n"}), FORM)
    assert answer.code == code, answer.body


def test_nothing_of_it_is_logged(server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    logs = [
        path.read_text() for path in Path(tmp_path_factory.getbasetemp()).glob("protocol*/clickhouse.log")
    ]
    assert logs
    assert not any("Traceback" in log or token in log for log in logs for token in server.tokens.values())
