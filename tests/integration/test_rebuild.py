"""`tailrace rebuild` on the real engine, while a sink runs on a log in memory: each record has one row."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import pytest
from tests.support.clickhouse_server import LOGINS, start
from tests.support.clickhouse_walls import amend
from tests.support.simulation import drained

from tailrace.clickhouse.client import ClickHouse
from tailrace.clickhouse.history import lacking
from tailrace.clickhouse.migrations import migrate
from tailrace.clickhouse.tables import TableColumn, ensure_table
from tailrace.errors import BadRecord, UsageError
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process
from tailrace.sink import rebuild as module
from tailrace.sink.loop import Sink
from tailrace.sink.plan import make_plan
from tailrace.sink.rebuild import Rebuild, Rebuilt
from tailrace.sink.rows import Row, TableLayout
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.backends.kafka.group_offsets import GroupProgress
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Message, TopicPartition

PARTITIONS = 3


class Lines:
    """Every message is a row of ``lines``, but those that nobody can read."""

    layout = TableLayout("lines", (TableColumn("value", "String", itemgetter("value")),))

    def __init__(self, clickhouse: ClickHouse) -> None:
        self.clickhouse = clickhouse
        self.is_used = True

    def control(self, messages: Sequence[Message]) -> None: ...
    def begin(self) -> None: ...
    def forget_tables(self) -> None: ...

    def topics(self) -> frozenset[str]:
        return frozenset({"lines"})

    def tables(self) -> dict[str, list[str]]:
        return {"lines": ["lines"], "unreadable": ["lines"]}

    def restore_tables(self) -> None:
        ensure_table(self.clickhouse, "lines", self.layout.columns, lambda: self.is_used)

    def read(self, message: Message) -> Row | None:
        if message.value() == b"?":
            raise BadRecord("nonsense", "a question mark")
        return Row(message, self.layout, {"value": message.value()})


class World:
    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.server: Process = start(home, self.port)
        self.clickhouse = ClickHouse(f"http://{HOST}:{self.port}", auth=LOGINS[self.port])
        self.rows = Lines(self.clickhouse)
        self.log = MemoryLog()
        self.log.create_topic("tailrace.contracts")
        self.log.create_topic("lines", PARTITIONS)
        self.sent = 0
        self.sink = self.start_sink()

    def start_sink(self) -> Sink:
        return Sink(
            self.log.backend(), self.rows, self.clickhouse, group="sink", clock=MemoryClock(self.log),
            restore=self.restore, linger_s=0.0, max_rows=100,
        )  # fmt: skip

    def restore(self) -> None:
        self.rows.is_used = bool(self.log.committed("sink"))
        migrate(self.clickhouse, stored=lambda topic: self.rows.is_used)
        self.rows.restore_tables()

    def send(self, count: int) -> None:
        for _ in range(count):
            value = b"?" if self.sent % 10 == 9 else b"%d" % self.sent
            self.log.append("lines", value, partition=self.sent % PARTITIONS)
            self.sent += 1

    def turn(self, turns: int = 60) -> None:
        for _ in range(turns):
            self.sink.step()

    def restart_without(self, *statements: str) -> None:
        self.server.stop(10)
        if statements:
            amend(self.home, *statements)
        self.server = start(self.home, self.port)

    def progress(self) -> dict[TopicPartition, GroupProgress]:
        return {
            tp: GroupProgress(self.log.partition(tp).start, committed.offset)
            for tp, committed in self.log.committed("sink").items()
        }

    def rebuild(self, table: str) -> Rebuilt:
        """Records come, and the sink goes on, between any two blocks."""
        history = self.log.backend().history
        work = Rebuild(self.clickhouse, self.rows, self.progress, history, MemoryClock(self.log))

        def meanwhile(_: int) -> None:
            self.send(7)
            self.turn(3)

        return work.run(table, meanwhile)

    def stored(self) -> list[tuple[int, int]]:
        return list(
            self.clickhouse.query(
                "SELECT _partition, _offset FROM (SELECT _partition, _offset, _topic FROM lines UNION ALL "
                "SELECT _partition, _offset, _topic FROM unreadable) WHERE _topic = 'lines' ORDER BY ALL"
            ).rows
        )

    def check(self) -> None:
        for _ in range(100):
            if drained(self.log, "sink", ["lines"]):
                break
            self.turn(10)
        assert drained(self.log, "sink", ["lines"]), self.sink.waiting
        expected = sorted((m.partition(), m.offset()) for m in self.log.messages("lines"))
        assert self.stored() == expected


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("rebuild"))
    world.send(600)
    world.check()
    yield world
    world.server.stop(10)


@pytest.fixture
def world(server: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "BLOCK_OFFSETS", 100)
    server.check()
    return server


@pytest.mark.parametrize("tables", [("lines",), ("lines", "unreadable")])
def test_dropped_tables(world: World, tables: Sequence[str]) -> None:
    world.restart_without(*(f"DROP TABLE tailrace.{table}" for table in tables))
    world.send(30)
    world.turn()
    assert set(lacking(world.clickhouse)) == set(tables)
    for table in tables:
        done = world.rebuild(table)
        assert sum(done.filled.values()) > 0 or table != tables[0]
    world.check()
    assert lacking(world.clickhouse) == {}
    assert sum(world.rebuild(tables[0]).filled.values()) == 0
    world.check()


def test_a_dropped_table_while_a_plan_is_pending(world: World) -> None:
    """Whoever repeats the plan and whoever rebuilds do not insert the same."""
    world.send(60)
    world.sink.close()
    partition = TopicPartition("lines", 0)
    first = world.log.committed("sink")[partition].offset
    planned = [m for m in world.log.messages("lines", 0) if m.offset() >= first][:9]
    plan = make_plan(first, [(m.offset(), m.value() != b"?") for m in planned])
    world.log.groups.group("sink").committed[partition] = Committed(first, plan.pack())
    world.restart_without("DROP TABLE tailrace.lines")
    world.sink = world.start_sink()
    world.rebuild("lines")
    world.check()


def largest_file(world: World) -> Path:
    """Of the part that all smaller ones have been merged into: nothing is written until then."""
    for _ in range(100):
        rows = world.clickhouse.query("SELECT path FROM system.parts WHERE table = 'lines' AND active").rows
        merges = world.clickhouse.query("SELECT count() FROM system.merges WHERE table = 'lines'").rows
        if merges == [(0,)]:
            break
        time.sleep(0.1)
    return max(
        (file for (folder,) in rows for file in Path(folder).glob("*.bin")),
        key=lambda file: file.stat().st_size,
    )


def test_a_damaged_part(world: World) -> None:
    active = "SELECT count() FROM system.parts WHERE table = 'lines' AND active AND path = {path:String}"
    for _ in range(20):
        file = largest_file(world)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
        time.sleep(0.3)
        # Unless it was merged with another just before.
        if world.clickhouse.query(active, {"path": f"{file.parent}/"}).rows == [(1,)]:
            break
    done = world.rebuild("lines")
    assert len(done.damaged_parts) == 1
    assert done.filled["lines"] > 0
    world.check()
    assert lacking(world.clickhouse) == {}


def test_a_part_that_was_damaged_while_the_server_was_away(world: World) -> None:
    file = largest_file(world)
    world.server.stop(10)
    file.write_bytes(b"")
    world.server = start(world.home, world.port)
    assert "set aside" in lacking(world.clickhouse)["lines"]
    # ClickHouse may still have had the parts that it was merged from.
    world.rebuild("lines")
    world.check()
    assert lacking(world.clickhouse) == {}


def test_the_folder_gone(world: World) -> None:
    world.server.stop(10)
    shutil.rmtree(world.home / "data" / "clickhouse")
    world.server = start(world.home, world.port)
    world.send(20)
    world.turn()
    assert {"lines", "unreadable", "contracts"} <= lacking(world.clickhouse).keys()
    for table in ("lines", "unreadable"):
        world.rebuild(table)
    world.check()


def test_a_table_that_no_topic_is_stored_in(world: World) -> None:
    with pytest.raises(UsageError, match="can be rebuilt are lines, unreadable"):
        world.rebuild("nonsense")


def test_what_is_no_longer_held_is_named(world: World) -> None:
    """The last of the tests: what is deleted is gone."""
    cut = {
        partition: world.log.partition(TopicPartition("lines", partition)).end // 2
        for partition in range(PARTITIONS)
    }
    for partition, offset in cut.items():
        world.log.delete_records("lines", partition, offset)
    done = world.rebuild("lines")
    assert [(s["partition"], s["from"], s["to"]) for s in done.gone] == [
        (partition, 0, offset - 1) for partition, offset in cut.items()
    ]
    assert all(0 < stretch["rows_kept"] <= stretch["to"] + 1 for stretch in done.gone)
    world.restart_without("DROP TABLE tailrace.lines", "DROP TABLE tailrace.unreadable")
    done = world.rebuild("lines")
    assert [stretch["rows_kept"] for stretch in done.gone] == [0] * PARTITIONS
    world.check()
