"""The local ClickHouse through an ordinary client over HTTP, and our tables in it, on the real engine."""

from __future__ import annotations

import datetime
import gzip
import http.client
import itertools
import math
import os
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import lz4.frame
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from tests.support.clickhouse_server import LOGINS, connected, start, token_of
from tests.support.clickhouse_walls import amend
from tests.support.examples import CONTRACT, SCHEMAS, examples
from tests.support.stored import Stored, count_by_topic

from tailrace.avro.codec import Codec
from tailrace.clickhouse.client import ClickHouse, QueryFailed
from tailrace.clickhouse.migrations import MigrationError, migrate, read_migrations
from tailrace.clickhouse.tables import (
    CONTROL_TABLES,
    TableColumn,
    columns_of,
    create_table,
    ensure_tables,
    few_values_of,
    model_tables,
)
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.schemas import lane_schemas
from tailrace.control.registration import register_schemas
from tailrace.errors import Unavailable
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process
from tailrace.package_data import data_dir
from tailrace.sink.loop import Sink
from tailrace.sink.plan import InsertPlan
from tailrace.sink.rows import UNREADABLE_LAYOUT, Row, RowReader, TableLayout, blocks
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Message, PlainMessage, TopicPartition
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control, message_of


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    found = free_port()
    process = start(tmp_path_factory.mktemp("bridge"), found)
    yield found
    process.stop(10)


@pytest.fixture
def database(port: int) -> str:
    name = f"d{uuid.uuid4().hex[:8]}"
    with connected(port) as client:
        client.command(f"CREATE DATABASE {name}")
    return name


@pytest.fixture
def client(port: int, database: str) -> Iterator[Any]:
    with connected(port, database=database) as found:
        yield found


TABLE = """CREATE TABLE t (
    a UInt64, s Nullable(String), d DateTime64(3, 'UTC'), m Map(LowCardinality(String), Float64),
    l LowCardinality(Nullable(String)), n Array(Tuple(f String, x Nullable(Float64)))
) ENGINE = ReplacingMergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100"""
COLUMNS = list("asdmln")
DAY = datetime.datetime(2024, 5, 1, 12, 30, 0, 125_000)


def rows(count: int) -> list[list[Any]]:
    return [
        [n, None if n % 3 == 0 else f"é{n}", DAY, {"x": n / 2}, "ab"[n % 2], [("f", 1.5), ("g", None)]]
        for n in range(count)
    ]


@pytest.mark.parametrize("compress", [True, "zstd", "gzip", False])
def test_native_goes_in_and_comes_out_the_same(port: int, database: str, compress: bool | str) -> None:
    with connected(port, database=database, compress=compress) as client:
        client.command(TABLE)
        # Enough for many blocks, which the client compresses one by one and streams.
        given = rows(60_000)
        assert client.insert("t", given, column_names=COLUMNS).written_rows == 60_000
        selected = client.query("SELECT * FROM t ORDER BY a").result_rows
        assert selected[1] == (1, "é1", DAY, {"x": 0.5}, "b", [{"f": "f", "x": 1.5}, {"f": "g", "x": None}])
        assert [row[:3] for row in selected] == [tuple(row[:3]) for row in given]


def test_parameters_of_any_length(client: Any) -> None:
    text = "quote ' backslash \\ tab \t newline \n ünïcode" * 3_000
    answer = client.query(
        "SELECT {text:String}, {list:Array(String)}, {number:Int64}",
        parameters={"text": text, "list": ["a'b", "c"], "number": -5},
    )
    assert answer.result_rows == [(text, ["a'b", "c"], -5)]


def test_a_token_counts_once_and_again_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    process = start(tmp_path, port)
    clickhouse = ClickHouse(f"http://{HOST}:{port}/once", auth=LOGINS[port])
    clickhouse.create_database()
    clickhouse.command(
        "CREATE TABLE t (a Int64) ENGINE = ReplacingMergeTree ORDER BY a "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    types = clickhouse.columns("t")
    clickhouse.insert("t", {"a": [1, 2, 3]}, types, "one")
    clickhouse.insert("t", {"a": [1, 2, 3]}, types, "one")
    clickhouse.insert("t", {"a": [1, 2, 3]}, types, "two")
    assert clickhouse.query("SELECT count() FROM t").rows == [(6,)]
    process.stop(10)
    process = start(tmp_path, port)
    try:
        clickhouse.insert("t", {"a": [1, 2, 3]}, types, "one")
        assert clickhouse.query("SELECT count() FROM t").rows == [(6,)]
        second = Process(
            [sys.executable, "-m", "tailrace.cli", "run", "clickhouse"],
            tmp_path / "second.log",
            os.environ | {"TAILRACE_HOME": str(tmp_path), "TAILRACE_PORT": str(free_port())},
        )
        second.launch()
        assert second.wait(30) == 1
        assert "another process already serves" in second.last_words()
    finally:
        process.stop(10)


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT throwIf(number = 70000) FROM numbers(100000)", 395),
        ("SELEKT 1", 62),
        ("SELECT * FROM nowhere", 60),
        ("SELECT 1; SELECT 2", 62),
    ],
)
def test_a_failing_query_leaves_nothing_behind(client: Any, sql: str, code: int) -> None:
    with pytest.raises(DatabaseError) as failed:
        client.query(sql)
    assert failed.value.code == code
    assert "formatQuery" not in str(failed.value)
    assert client.query("SELECT 42").result_rows == [(42,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT file('/etc/hostname')",
        "SELECT `file`('/etc/hostname')",
        "SELECT FILE /* */ ('/etc/hostname')",
        "SELECT arrayMap(file, ['/etc/hostname'])",
        "SELECT * APPLY file FROM (SELECT '/etc/hostname')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM s3('https://x/y', 'CSV')",
        "SELECT * FROM remote('127.0.0.1', system.one)",
        "SELECT * FROM executable('cat', 'LineAsString', 'a String')",
        "SELECT * FROM python(x)",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM default.`/etc/hostname`",
        "SELECT * FROM filesystem('/etc')",
        "SELECT * FROM eval('SELECT 1') SETTINGS allow_experimental_eval_table_function = 1",
        "SELECT * FROM view(SELECT file('/etc/hostname'))",
        "SELECT * FROM format(Values, 'a Nullable(String)', '(file(''/etc/hostname''))')",
        "SELECT 1 INTO OUTFILE 'FOLDER/out'",
        "INSERT INTO FUNCTION file('FOLDER/out', 'CSV', 'a Int64') SELECT 1",
        "INSERT INTO t FROM INFILE '/etc/hostname' FORMAT LineAsString",
        "INSERT INTO t VALUES (file('/etc/hostname'))",
        "INSERT INTO t SETTINGS input_format_values_interpret_expressions = 1 VALUES (file('/etc/hostname'))",
        "CREATE TABLE f (a String) ENGINE = File(LineAsString, '/etc/hostname')",
        "CREATE TABLE f (a String) ENGINE = URL('http://127.0.0.1:1/', LineAsString)",
        "CREATE TABLE f (a String DEFAULT file('/etc/hostname')) ENGINE = ReplacingMergeTree ORDER BY a",
        "CREATE TABLE f (a Int8) ENGINE = ReplacingMergeTree ORDER BY a SETTINGS disk = disk(path = 'FOLDER/')",
        "CREATE TABLE f (a String) ENGINE = Kafka SETTINGS kafka_broker_list = 'x'",
        "CREATE DICTIONARY f (a UInt64) PRIMARY KEY a SOURCE(FILE(path '/etc/hostname' format 'CSV')) LAYOUT(FLAT())",
        "CREATE FUNCTION f AS (x) -> file(x)",
        "ATTACH TABLE f FROM '/etc' (a String) ENGINE = ReplacingMergeTree ORDER BY a",
        "BACKUP TABLE t TO File('FOLDER/out')",
        "CREATE USER u",
        "SYSTEM SHUTDOWN",
    ],
)
def test_nothing_reaches_out_of_the_database(client: Any, tmp_path: Path, sql: str) -> None:
    client.command("CREATE TABLE t (a Nullable(String)) ENGINE = ReplacingMergeTree ORDER BY tuple()")
    with pytest.raises(DatabaseError) as refused:
        client.command(sql.replace("FOLDER", str(tmp_path)))
    assert refused.value.code is not None
    assert not list(tmp_path.iterdir())
    assert client.query("SELECT count() FROM t").result_rows == [(0,)]


@pytest.mark.parametrize("name", ["file", "FILE", "`file`", "f\\x69le", "a.file"])
def test_an_identifier_parameter_is_no_way_out(client: Any, port: int, name: str) -> None:
    sql = "SELECT arrayMap({f:Identifier}, ['/etc/hostname'])"
    assert request(port, "POST", {"param_f": name}, sql)[1]["X-ClickHouse-Exception-Code"] == "497"
    with pytest.raises(DatabaseError):
        client.query(f"{sql} SETTINGS param_f = 'file'")
    with pytest.raises(DatabaseError):
        client.query(sql, parameters={"f": "lower"}, settings={"param_f": "file"})
    client.command("CREATE TABLE t (a Int64) ENGINE = ReplacingMergeTree ORDER BY tuple()")
    assert client.query("SELECT count() FROM {t:Identifier}", parameters={"t": "t"}).result_rows == [(0,)]


def test_what_looks_like_a_refused_name_in_data_passes(client: Any) -> None:
    client.command("CREATE TABLE t (a String) ENGINE = ReplacingMergeTree ORDER BY a")
    client.command("INSERT INTO t VALUES ('file(''/etc/hostname'') INTO OUTFILE')")
    assert client.query("SELECT a, 'url(1)' FROM t").result_rows == [
        ("file('/etc/hostname') INTO OUTFILE", "url(1)")
    ]


def test_settings_and_readonly_do_not_leak(client: Any) -> None:
    assert client.query(
        "SELECT getSetting('max_block_size')", settings={"max_block_size": 3}
    ).result_rows == [(3,)]
    assert client.query("SELECT 1", settings={"readonly": 1}).result_rows == [(1,)]
    with pytest.raises(DatabaseError) as refused:
        client.command(
            "CREATE TABLE t (a Int64) ENGINE = ReplacingMergeTree ORDER BY a", settings={"readonly": 1}
        )
    assert refused.value.code == 164
    client.command("CREATE TABLE t (a Int64) ENGINE = ReplacingMergeTree ORDER BY a")
    client.command("SET max_threads = 7")
    assert client.query("SELECT getSetting('max_threads') = 7").result_rows == [(False,)]
    with pytest.raises(DatabaseError) as unknown:
        client.query("SELECT 1", settings={"no_such_setting": 1})
    assert unknown.value.code == 115


def request(
    port: int, method: str, query: dict[str, str], body: Any = None, **headers: str
) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    connection.request(method, f"/?{urlencode(query)}", body, headers | {"X-ClickHouse-Key": token_of(port)})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def test_plain_http(port: int, database: str) -> None:
    assert request(port, "GET", {"query": "SELECT 1 + 1"})[::2] == (200, b"2\n")
    status, headers, body = request(port, "GET", {"query": "DROP DATABASE " + database})
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, "497"), body
    assert request(port, "GET", {"query": "CREATE DATABASE d"})[1]["X-ClickHouse-Exception-Code"] == "164"
    assert request(port, "POST", {"session_id": "s"}, "SELECT 1")[::2] == (200, b"1\n")
    status, headers, _ = request(port, "POST", {"session_id": "s", "session_check": "1"}, "SELECT 1")
    assert headers["X-ClickHouse-Exception-Code"] == "372"
    status, headers, _ = request(port, "POST", {"database": "nowhere"}, "SELECT 1")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (404, "81")
    base = {"database": database}
    assert (
        request(
            port, "POST", base, "CREATE TABLE t (a Int64, b String) ENGINE = ReplacingMergeTree ORDER BY a"
        )[0]
        == 200
    )
    insert = base | {"query": "INSERT INTO t FORMAT CSV"}
    for body, encoding in (
        (b"1,x\n2,y\n", {}),
        (gzip.compress(b"3,z\n"), {"Content-Encoding": "gzip"}),
        (lz4.frame.compress(b"4,z\n") + lz4.frame.compress(b"5,z\n"), {"Content-Encoding": "lz4"}),
        (iter([b"6,", b"v\n7", b",w\n"]), {}),  # chunked
    ):
        assert request(port, "POST", insert, body, **encoding)[0] == 200
    status, headers, body = request(port, "POST", insert, b"not gzip", **{"Content-Encoding": "gzip"})
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (500, "354"), body
    assert request(port, "POST", insert, b"1,x\nbroken")[0] == 400
    assert request(port, "POST", base, b'INSERT INTO t FORMAT JSONEachRow {"a": 8, "b": "q"}')[0] == 200
    assert request(port, "POST", base, b"INSERT INTO t VALUES (9, 'r'), (10, 's'); DROP TABLE t")[0] in (
        200,
        400,
    )
    assert request(port, "GET", base | {"query": "SELECT sum(a) >= 36 FROM t"})[2] == b"1\n"
    assert request(port, "GET", base | {"query": "SELECT a, b FROM t WHERE a = 6 FORMAT JSONEachRow"})[2] == (
        b'{"a":6,"b":"v"}\n'
    )


def test_half_an_insert_is_no_insert(port: int, database: str, client: Any) -> None:
    client.command("CREATE TABLE t (a Int64) ENGINE = ReplacingMergeTree ORDER BY a")
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    query = urlencode({"database": database, "query": "INSERT INTO t FORMAT CSV"})
    connection.putrequest("POST", f"/?{query}")
    connection.putheader("X-ClickHouse-Key", token_of(port))
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"1\n2\n3\n")
    connection.close()
    # Whatever comes after it is not disturbed, and never sees its rows.
    for _ in range(5):
        client.insert("t", [[7]], column_names=["a"])
        assert client.query("SELECT countIf(a < 7) FROM t").result_rows == [(0,)]


def test_large_values(client: Any) -> None:
    client.command("CREATE TABLE t (a Int64, s String) ENGINE = ReplacingMergeTree ORDER BY a")
    client.insert("t", [[n, "x" * 2_500_000] for n in range(4)], column_names=["a", "s"])
    assert client.query("SELECT sum(length(s)) FROM t").result_rows == [(10_000_000,)]
    assert len(client.query("SELECT s FROM t WHERE a = 2").result_rows[0][0]) == 2_500_000


def test_many_at_once(port: int, database: str, client: Any) -> None:
    client.command("CREATE TABLE t (a Int64) ENGINE = ReplacingMergeTree ORDER BY a")
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with connected(port, database=database) as mine:
                for turn in range(10):
                    mine.insert("t", [[number * 100 + turn]], column_names=["a"])
                    with pytest.raises(DatabaseError):
                        mine.query("SELECT throwIf(1)")
                    assert mine.query(f"SELECT {number}").result_rows == [(number,)]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert client.query("SELECT count(), uniqExact(a) FROM t").result_rows == [(60, 60)]


def test_the_wrapper_tells_errors_apart(port: int, database: str) -> None:
    clickhouse = ClickHouse(f"http://{HOST}:{port}/{database}", auth=LOGINS[port])
    with pytest.raises(QueryFailed) as failed:
        clickhouse.query("SELECT * FROM nowhere")
    assert (failed.value.code, failed.value.name) == (60, "UNKNOWN_TABLE")
    with pytest.raises(QueryFailed):
        clickhouse.query("CREATE TABLE t (a Int64) ENGINE = ReplacingMergeTree ORDER BY a")
    with pytest.raises(Unavailable):
        ClickHouse(f"http://{HOST}:1/x", timeout=2).query("SELECT 1")
    assert clickhouse.columns("nowhere") == {}
    assert clickhouse.select("SELECT 1 AS a, 'x' AS b") == [{"a": 1, "b": "x"}]


# Migrations, typed tables ---


@pytest.fixture
def clickhouse(port: int) -> Iterator[ClickHouse]:
    found = ClickHouse(f"http://{HOST}:{port}/m{uuid.uuid4().hex[:8]}", auth=LOGINS[port])
    yield found
    found.close()


def test_migrations_are_applied_once(clickhouse: ClickHouse, tmp_path: Path) -> None:
    shipped = [migration.name for migration in read_migrations()]
    # Several services start at once.
    with ThreadPoolExecutor(3) as pool:
        assert {tuple(done) for done in pool.map(lambda _: migrate(clickhouse), range(3))} <= {
            tuple(shipped),
            (),
        }
    assert migrate(clickhouse) == []
    for table in (*CONTROL_TABLES.values(), "dead_letters", "unreadable"):
        assert list(clickhouse.columns(table))[:4] == ["_topic", "_partition", "_offset", "_time"]
    clickhouse.command("INSERT INTO alerts (_topic, _partition, _offset, summary) VALUES ('a', 0, 0, 'kept')")

    for file in data_dir("schemas", "clickhouse").glob("*.sql"):
        (tmp_path / file.name).write_text(file.read_text())
    more = f"{len(shipped) + 1:04}_more"
    (tmp_path / f"{more}.sql").write_text("ALTER TABLE alerts ADD COLUMN IF NOT EXISTS more String;\n")
    added = read_migrations(tmp_path)
    assert migrate(clickhouse, added) == [more]
    assert clickhouse.query("SELECT summary, more FROM alerts").rows == [("kept", "")]
    with pytest.raises(MigrationError, match="newer version"):
        migrate(clickhouse, added[:1])
    (tmp_path / f"{more}.sql").write_text("ALTER TABLE alerts ADD COLUMN IF NOT EXISTS other String;\n")
    with pytest.raises(MigrationError, match=rf"{more} has changed.*put it back"):
        migrate(clickhouse, read_migrations(tmp_path))


def test_a_prediction_comes_out_as_it_went_in(clickhouse: ClickHouse) -> None:
    contract = load_contract(
        "{model: credit, owner: {team: risk}, features: {income: {type: number}, age: {type: integer}, "
        "home: {type: boolean}, file: {type: number}, purpose: {categories: [car, 'ü']}}, "
        "target: {name: grade, categories: [a, b, c]}}"
    )
    migrate(clickhouse)
    assert len(ensure_tables(clickhouse, contract)) == 6
    assert ensure_tables(clickhouse, contract) == []
    registry = MemoryRegistry()
    codec, control = Codec(registry), Control(registry)
    reader = RowReader(control.by("sink"), clickhouse)
    applied = {
        "model": "credit",
        "revision": 1,
        "follows": 0,
        "digest": contract.digest,
        "source_text": "",
        "resolved": contract.resolved_json,
        "applied_by": "me",
        "applied_at": 5,
    }
    reader.control([message_of(control.record("Contract", applied))])
    schema_id = registry.register("credit.predictions-value", lane_schemas(contract)["credit.predictions"])
    event: dict[str, Any] = {
        "prediction_id": "p",
        "request_id": "credit.requests/0/7",
        "key": "k",
        "event_time": 1_714_566_600_125,
        "source": {"topic": "credit.requests", "partition": 0, "offset": 7},
        "model": "credit",
        "version": 3,
        "artifact_digest": "d",
        "contract_digest": "c",
        "rollout_revision": 2,
        "runtime": {"python": "3.11", "onnxruntime": "1.31"},
        "role": "champion",
        "served_by": "rule",
        "served_cause": "guard",
        "request": {"income": float("nan"), "age": None, "home": True, "file": 0.5, "purpose": "ü"},
        "replaced": [
            {"field": "age", "value": "40", "reason": "missing"},
            {"field": "x", "value": None, "reason": "y"},
        ],
        "probabilities": {"a": 0.25, "b": 0.5, "c": 0.25},
        "predicted_class": "b",
        "action": "refer",
        "action_propensity": 0.5,
        "arm_propensity": 1.0,
        "guardrails": [{"guard": "domain", "field": None, "detail": "far"}],
        "guarded": True,
        "coverage": 0.9,
        "prediction_set": ["b", "a, c"],
        "explanation": [{"feature": "income", "contribution": -0.5}],
        "latency_ms": 1.25,
    }
    message = PlainMessage(
        "credit.predictions", 1, 9, codec.encode(schema_id, event), b"k", (), 1_714_566_601_000
    )
    row = reader.read(message)
    assert row is not None
    ((table, block),) = blocks([row]).items()
    for _ in range(2):
        clickhouse.insert(table, block, clickhouse.columns(table), "credit.predictions/1/9/10")
    (stored,) = clickhouse.select("SELECT * FROM credit_predictions")
    assert math.isnan(stored.pop("income"))
    same = {name: value for name, value in event.items() if name not in ("source", "request", "event_time")}
    assert stored == same | {
        "_topic": "credit.predictions",
        "_partition": 1,
        "_offset": 9,
        "_time": datetime.datetime(2024, 5, 1, 12, 30, 1, tzinfo=datetime.UTC),
        "event_time": datetime.datetime(2024, 5, 1, 12, 30, 0, 125_000, tzinfo=datetime.UTC),
        "source_topic": "credit.requests",
        "source_partition": 0,
        "source_offset": 7,
        "home": True,
        "file": 0.5,
        "purpose": "ü",
        **dict.fromkeys(
            (
                *(
                    "arm",
                    "score",
                    "value",
                    "rule",
                    "age",
                    "given_request_id",
                    "given_model",
                    "given_event_time",
                ),
                *("interval_low", "interval_high"),
            )
        ),
    }
    assert count_by_topic(clickhouse) == {"credit.predictions": Stored(1, 1)}


def test_every_example_comes_out_as_it_went_in(clickhouse: ClickHouse) -> None:
    """Reports and runs with all that they nest, and an outcome with its prediction and request."""
    migrate(clickhouse)
    ensure_tables(clickhouse, CONTRACT)
    registry = MemoryRegistry()
    register_schemas(registry, CONTRACT)
    stored = 0
    for example in examples():
        schema = SCHEMAS.get(example.topic)
        if not example.ok or example.record is None or schema is None or example.topic in UNSTORED:
            continue
        columns = columns_of(schema, few_values_of(CONTRACT))
        table = CONTROL_TABLES.get(example.topic) or model_tables(CONTRACT)[example.topic]
        place = {"_topic": [example.topic], "_partition": [0], "_offset": [stored], "_time": [0]}
        block = place | {column.name: [column.value(example.record)] for column in columns}
        clickhouse.insert(table, block, clickhouse.columns(table), f"example/{stored}")
        (row,) = clickhouse.select(f"SELECT * FROM {table} WHERE _offset = {stored}")
        for column in columns:
            value = column.value(example.record)
            rows = "Tuple(" in column.type
            assert plain_value(row.get(column.name), rows) == plain_value(value), (
                example.name,
                column.name,
            )
        stored += 1
    assert stored > 15
    evaluations = clickhouse.select(
        "SELECT who, version, metric, value, n FROM model_evaluations ORDER BY who"
    )
    assert evaluations == [
        {"who": "candidate", "version": 2, "metric": "auc", "value": 0.84, "n": 480},
        {"who": "champion", "version": 1, "metric": "auc", "value": 0.71, "n": 480},
    ]
    drifted = clickhouse.query(
        "SELECT test.feature, length(test.histogram) FROM drift_reports ARRAY JOIN tests AS test ORDER BY 1"
    )
    assert drifted.rows == [("income", 2), ("purpose", 0)]


UNSTORED = {"tailrace.window-parts"}


def plain_value(value: Any, rows: bool = False) -> Any:
    """As both sides say it: times in milliseconds, rows of nested records as lists, bytes as text."""
    if isinstance(value, datetime.datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, dict) and not rows:
        return {name: plain_value(inner) for name, inner in value.items()}
    if isinstance(value, dict | list | tuple):
        parts = value.values() if isinstance(value, dict) else value
        return [plain_value(part, rows) for part in parts]
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


# The sink's inserts ---


class Lines:
    """Every message is a row of the table ``lines``."""

    layout = TableLayout("lines", (TableColumn("value", "String", itemgetter("value")),))

    def control(self, messages: Sequence[Message]) -> None: ...

    def begin(self) -> None: ...

    def forget_tables(self) -> None: ...

    def topics(self) -> frozenset[str]:
        return frozenset({"lines"})

    def read(self, message: Message) -> Row | None:
        return Row(message, self.layout, {"value": message.value()})


def test_what_is_there_is_not_inserted_and_what_is_missing_is(tmp_path: Path) -> None:
    """Whatever ClickHouse remembers of a plan that is repeated, and whatever an operator did to the offsets."""
    port = free_port()
    process = start(tmp_path, port)
    clickhouse = ClickHouse(f"http://{HOST}:{port}", auth=LOGINS[port])
    clickhouse.create_database()
    for layout in (Lines.layout, UNREADABLE_LAYOUT):
        clickhouse.command(create_table(layout.table, layout.columns))
    log = MemoryLog()
    log.create_topic("tailrace.contracts")
    log.create_topic("lines", 4)
    for partition, number in itertools.product(range(4), range(10)):
        log.append("lines", b"%d" % number, partition=partition)

    def store(partition: int, offsets: Sequence[int], token: str) -> None:
        block = {
            "_topic": ["lines"] * len(offsets),
            "_partition": [partition] * len(offsets),
            "_offset": list(offsets),
            "_time": [0] * len(offsets),
            "value": [str(offset) for offset in offsets],
        }
        clickhouse.insert("lines", block, clickhouse.columns("lines"), token)

    plan = InsertPlan(2, 8)
    group = log.groups.group("sink")
    # 0: planned, and ClickHouse was killed between the token and the rows.
    store(0, range(2, 8), plan.token(TopicPartition("lines", 0)))
    process.stop(10)
    amend(tmp_path, "ALTER TABLE tailrace.lines DELETE WHERE _partition = 0 SETTINGS mutations_sync = 2")
    process = start(tmp_path, port)
    store(0, range(2, 8), plan.token(TopicPartition("lines", 0)))
    assert clickhouse.query("SELECT count() FROM lines").rows == [(0,)], "the token is remembered"
    store(0, range(2), "lines/0/0/2")
    # 1: planned and inserted.
    store(1, range(2), "lines/1/0/2")
    store(1, range(2, 8), plan.token(TopicPartition("lines", 1)))
    # 2: stored, and then somebody set the offset back.
    store(2, range(7), "lines/2/0/7")
    for number in (0, 1):
        group.committed[TopicPartition("lines", number)] = Committed(2, plan.pack())
    group.committed[TopicPartition("lines", 2)] = Committed(1)

    sink = Sink(log.backend(), Lines(), clickhouse, group="sink", clock=MemoryClock(log))
    for _ in range(200):
        sink.step()
    sink.close()
    assert {tp.partition: c for tp, c in group.committed.items()} == dict.fromkeys(range(4), Committed(10))
    places = clickhouse.query("SELECT _partition, _offset FROM lines ORDER BY ALL").rows
    process.stop(10)
    assert places == list(itertools.product(range(4), range(10)))
