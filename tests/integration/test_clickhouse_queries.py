"""A query to the local ClickHouse ends with its client, is killed by the client's id, streams, and keeps to limits."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import clickhouse_connect
import pytest
from tests.support.clickhouse_server import connected, start
from tests.support.waiting import until

from tailrace.access.credentials import HTTP, OPS, SERVICES, Credentials
from tailrace.local.clickhouse_limits import limits_of
from tailrace.local.ports import HOST, free_port

ENDLESS = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"
LARGE = "SELECT number, toString(number) AS text, sipHash64(number) FROM numbers(10000000) FORMAT CSV"
ENDLESS_ANSWER = LARGE.replace("10000000", "10000000000")
"""It goes on for longer than a test waits."""
LARGE_BYTES = 380_000_000


class Server(NamedTuple):
    port: int
    pid: int
    tokens: Mapping[str, str]

    def open(self, sql: str, user: str = OPS, **query: str) -> http.client.HTTPConnection:
        """Sends a statement, and does not wait for its answer."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=120)
        connection.request("POST", f"/?{urlencode(query)}", sql, {"X-ClickHouse-Key": self.tokens[user]})
        return connection

    def ask(self, sql: str, user: str = OPS, **query: str) -> tuple[int, bytes]:
        with closing(self.open(sql, user, **query)) as connection:
            answer = connection.getresponse()
            return answer.status, answer.read()

    def running(self) -> int:
        """Statements that run, without the one that asks."""
        status, body = self.ask("SELECT count() - 1 FROM system.processes", SERVICES)
        assert status == 200, body
        return int(body)

    def wait_until_running(self, count: int) -> None:
        until(
            lambda: self.running() == count,
            lambda: str(self.ask("SELECT query, elapsed FROM system.processes")),
        )

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home, port = tmp_path_factory.mktemp("queries"), free_port()
    process = start(home, port)
    assert process.pid is not None
    credentials = Credentials(home)
    tokens = {user: credentials.make(HTTP, user) for user in (SERVICES, OPS)}
    yield Server(port, process.pid, tokens)
    process.stop(10)


@pytest.mark.parametrize("user", [OPS, SERVICES])
@pytest.mark.parametrize("sql", [ENDLESS, ENDLESS_ANSWER])
def test_a_query_ends_with_its_client(server: Server, user: str, sql: str) -> None:
    connection = server.open(sql, user)
    server.wait_until_running(1)
    connection.close()
    server.wait_until_running(0)


def test_a_query_whose_client_has_read_some_of_it_ends_with_its_client(server: Server) -> None:
    connection = server.open(ENDLESS_ANSWER)
    assert len(connection.getresponse().read(3_000_000)) == 3_000_000
    connection.close()
    server.wait_until_running(0)


def test_many_queries_end_with_their_clients(server: Server) -> None:
    ended = []
    for number in range(10):
        connection = server.open(ENDLESS, [OPS, SERVICES][number % 2])
        server.wait_until_running(1)
        connection.close()
        closed = time.monotonic()
        server.wait_until_running(0)
        ended.append(time.monotonic() - closed)
    print(f"10 queries ended with their clients, after {max(ended):.2f} s at most")


@pytest.mark.parametrize("mode", ["SYNC", "ASYNC"])
def test_a_query_is_killed_by_its_client_s_id(server: Server, mode: str) -> None:
    with closing(server.open(ENDLESS, query_id="mine'1")) as connection:
        server.wait_until_running(1)
        # Of another user's id nothing is known.
        assert server.ask(f"KILL QUERY WHERE query_id = 'mine\\'1' {mode}", SERVICES) == (200, b"")
        status, body = server.ask("SELECT 1", query_id="mine'1")
        assert status == 500, body
        assert b"QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING" in body
        status, body = server.ask(f"KILL QUERY WHERE query_id = 'mine\\'1' {mode} FORMAT JSONEachRow")
        assert status == 200, body
        assert b'"query_id":"mine\'1","user":"ops"' in body
        answer = connection.getresponse()
        assert answer.status == 500
        assert answer.headers["X-ClickHouse-Query-Id"] == "mine'1"
        assert b"QUERY_WAS_CANCELLED" in answer.read()
    server.wait_until_running(0)
    assert server.ask(f"KILL QUERY WHERE query_id = 'mine\\'1' {mode}") == (200, b"")


def test_the_engine_shows_the_client_s_id(server: Server) -> None:
    sql = "SELECT Settings['chdb_client_name'] FROM system.processes"
    assert server.ask(sql, query_id="shown") == (200, b"shown\n")


@pytest.mark.parametrize("encoding", ["identity", "lz4"])
def test_a_large_answer_streams(server: Server, encoding: str) -> None:
    """379 MB of CSV; held whole it would be in memory at least twice."""
    server.ask("SELECT 1")
    before = largest = server.resident_bytes()
    began = time.monotonic()
    connection = http.client.HTTPConnection(HOST, server.port, timeout=120)
    headers = {"X-ClickHouse-Key": server.tokens[SERVICES], "Accept-Encoding": encoding}
    connection.request("POST", "/?enable_http_compression=1", LARGE, headers)
    answer = connection.getresponse()
    size = len(answer.read(1))
    first_s = time.monotonic() - began
    while piece := answer.read(4 << 20):
        size += len(piece)
        largest = max(largest, server.resident_bytes())
    connection.close()
    assert answer.status == 200
    assert first_s < (time.monotonic() - began) / 2
    if encoding == "identity":
        assert size > LARGE_BYTES
    else:
        assert answer.headers["Content-Encoding"] == encoding
    print(
        f"{encoding}: {size:,} bytes, first after {first_s:.2f} s, {(largest - before) >> 20} MiB more at most"
    )
    assert largest - before < 120 << 20, f"{(largest - before) >> 20} MiB more"


@pytest.mark.parametrize("answer_format", ["JSON", "CSVWithNamesAndTypes", "Native", "Parquet", "XML"])
def test_a_streamed_answer_is_one_document(server: Server, answer_format: str) -> None:
    """As the engine makes it whole: here in a table function, which is asked what it read."""
    sql = f"SELECT number AS a, toString(number) AS b FROM numbers(300000) FORMAT {answer_format}"
    status, body = server.ask(sql, SERVICES)
    assert status == 200
    assert len(body) > 1 << 20
    if answer_format == "JSON":
        assert body.count(b'"meta"') == 1
        assert b'"rows": 300000' in body
    elif answer_format == "XML":
        assert body.count(b"<?xml") == 1
        assert body.rstrip().endswith(b"</result>")
    elif answer_format == "CSVWithNamesAndTypes":
        assert body.count(b'"UInt64","String"\n') == 1
    elif answer_format == "Parquet":
        assert body.startswith(b"PAR1")
        assert body.endswith(b"PAR1")
        assert body.count(b"PAR1") == 2


@pytest.mark.parametrize("version", ["54405", "54460"])
def test_native_for_a_version_ends_with_its_client_and_streams(server: Server, version: str) -> None:
    sql = ENDLESS_ANSWER.replace("FORMAT CSV", "FORMAT Native")
    with closing(server.open(sql, client_protocol_version=version, compress="1")) as connection:
        assert len(connection.getresponse().read(3_000_000)) == 3_000_000
    server.wait_until_running(0)
    assert server.resident_bytes() < 2 << 30


def test_a_query_that_fails_late_breaks_its_answer_off(server: Server) -> None:
    sql = "SELECT throwIf(number = 9000000), toString(number) FROM numbers(10000000)"
    with closing(server.open(sql)) as connection:
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
    status, body = server.ask(sql.replace("9000000", "9000"), wait_end_of_query="1")
    assert (status, b"FUNCTION_THROW_IF_VALUE_IS_NON_ZERO" in body) == (500, True)


@pytest.mark.parametrize(
    ("sql", "expected", "name"),
    [
        ("SELECT length(groupArray(number)) FROM numbers(100000000000)", 500, b"MEMORY_LIMIT_EXCEEDED"),
        (f"{ENDLESS} SETTINGS max_execution_time = 1", 408, b"TIMEOUT_EXCEEDED"),
        (f"{ENDLESS} SETTINGS max_execution_time = 0", 403, b"max_execution_time is refused"),
        ("SELECT 1 SETTINGS max_threads = 4096", 403, b"max_threads is refused"),
        ("SELECT 1 SETTINGS priority = 1", 403, b"priority is refused"),
    ],
)
def test_limits_of_ops(server: Server, sql: str, expected: int, name: bytes) -> None:
    status, body = server.ask(sql)
    assert status == expected, body
    assert name in body


def test_what_a_client_sends_beside_its_statement_does_not_lift_limits(server: Server) -> None:
    sql = "SELECT getSetting('max_memory_usage'), getSetting('max_execution_time'), getSetting('priority')"
    limits = limits_of(OPS)
    expected = (
        f"{limits.settings['max_memory_usage']}\t{limits.settings['max_execution_time']}\t10\n".encode()
    )
    given = {"max_memory_usage": "0", "max_execution_time": "99999", "priority": "1"}
    assert server.ask(sql, OPS, **given) == (200, expected)
    assert server.ask("SELECT getSetting('max_execution_time')", OPS, max_execution_time="7") == (200, b"7\n")


def test_inserts_go_on_while_ops_asks_the_worst(server: Server) -> None:
    worst = [
        "SELECT uniqExact(sipHash64(number)) FROM numbers_mt(1000000000000)",
        "SELECT number FROM numbers(1000000000000) ORDER BY sipHash64(number) LIMIT 100000000",
        "SELECT count() FROM numbers(1000000) a CROSS JOIN numbers(1000000) b WHERE sipHash64(a.number, b.number) = 1",
        LARGE.replace("10000000", "1000000000000"),
    ]
    stop = threading.Event()

    def ask(number: int) -> None:
        while not stop.is_set():
            with closing(server.open(worst[number % len(worst)])) as connection:
                while not stop.is_set():
                    time.sleep(0.05)
                del connection

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(2 * len(worst))]
    slowest: list[float] = []
    with connected(server.port) as client:
        client.command("CREATE DATABASE IF NOT EXISTS busy")
        client.command(
            "CREATE TABLE busy.t (a Int64, s String) ENGINE = ReplacingMergeTree ORDER BY a "
            "SETTINGS non_replicated_deduplication_window = 100"
        )
        for thread in asking:
            thread.start()
        try:
            server.wait_until_running(4)
            for block in range(5):
                began = time.monotonic()
                rows = [[block * 20_000 + n, "x" * 200] for n in range(20_000)]
                client.insert("busy.t", rows, column_names=["a", "s"])
                assert client.query("SELECT max(a) FROM busy.t").result_rows == [(block * 20_000 + 19_999,)]
                slowest.append(time.monotonic() - began)
        finally:
            stop.set()
            for thread in asking:
                thread.join()
        assert client.query("SELECT count() FROM busy.t").result_rows == [(100_000,)]
    server.wait_until_running(0)
    print(f"blocks of 20,000 rows, in and read back: {', '.join(f'{s:.1f}' for s in slowest)} s")
    assert max(slowest) < 20, slowest


def test_ops_waits_for_ops(server: Server) -> None:
    """Statements beyond those that may run at once wait for one of them to end."""
    limit = limits_of(OPS).statements
    running: list[Any] = [server.open(ENDLESS) for _ in range(limit)]
    server.wait_until_running(limit)
    waiting = server.open("SELECT 'my turn'")
    time.sleep(0.3)
    assert server.running() == limit
    running.pop().close()
    assert waiting.getresponse().read() == b"my turn\n"
    waiting.close()
    for connection in running:
        connection.close()
    server.wait_until_running(0)


def test_an_ordinary_client_s_stream(server: Server) -> None:
    with clickhouse_connect.get_client(
        host=HOST, port=server.port, username=OPS, password=server.tokens[OPS]
    ) as client:
        total = 0
        with client.query_row_block_stream("SELECT number FROM numbers(3000000)") as blocks:
            for block in blocks:
                total += len(block)
        assert total == 3_000_000
        assert client.query("SELECT 1 WHERE 0").result_rows == []
