"""The sink under thousands of seeded schedules: as many rows as records, each where it belongs, none twice."""

from __future__ import annotations

import errno
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, cast

import pytest
from tests.support.memory_store import MemoryStore, StoreClient
from tests.support.simulation import Scenario, drained, simulate

from tailrace.avro.codec import Codec
from tailrace.clickhouse.client import QueryFailed
from tailrace.clickhouse.tables import CONTROL_TABLES, UNREADABLE, TableColumn, columns_of
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.control_codec import control_schema
from tailrace.contracts.records.lanes import CONTRACTS, Lane
from tailrace.contracts.records.schemas import lane_schemas
from tailrace.errors import BadRecord, TailraceError, Unavailable
from tailrace.sink.app import all_contracts
from tailrace.sink.loop import Sink
from tailrace.sink.rows import DEAD_LETTER_LAYOUT, UNREADABLE_LAYOUT, Row, RowReader, TableLayout
from tailrace.streaming.backends.abstract import Backend, Committed, Retriable
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Message, Record, RecordRef, TopicPartition
from tailrace.streaming.watermark_records import watermark_record, watermark_time
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control

TOPICS = ("one.requests", "one.predictions", "two.requests")
TABLES = ("contracts", "first", "second")


class Registry:
    """What is readable: it grows over time, and is away at times."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.known = {b"first"}
        self.away = 0.0


class GrowingRows:
    """Reads a message as a row of the table that its value names, once the registry knows the name."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.open: set[str] = {CONTRACTS}

    def control(self, messages: Sequence[Message]) -> None:
        self.open |= {(message.value() or b"").decode() for message in messages}

    def topics(self) -> frozenset[str]:
        return frozenset(self.open)

    def begin(self) -> None: ...

    def forget_tables(self) -> None: ...

    def read(self, message: Message) -> Row | None:
        if watermark_time(message) is not None:
            return None
        if self.registry.rng.random() < self.registry.away:
            raise Unavailable("the registry is away")
        value = message.value() or b""
        if message.topic() == CONTRACTS:
            return Row(message, LAYOUTS["contracts"], {"value": value})
        if value not in self.registry.known:
            raise BadRecord("unknown-schema", "not registered yet")
        return Row(message, LAYOUTS[value.decode()], {"value": value})


LAYOUTS = {name: TableLayout(name, (TableColumn("value", "String", itemgetter("value")),)) for name in TABLES}


class Storing(Scenario):
    group = "sink"

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.rng = rng
        self.trouble = rng.choice([0.0, 0.05, 0.2])
        self.registry = Registry(rng)
        self.registry.away = rng.choice([0.0, 0.0, 0.1])
        self.store = MemoryStore(
            {name: ["value"] for name in TABLES}
            | {UNREADABLE: [column.name for column in UNREADABLE_LAYOUT.columns]}
        )
        self.fed: dict[RecordRef, bytes] = {}
        self.clients: list[StoreClient] = []
        self.to_open = list(TOPICS)
        log.create_topic(CONTRACTS, 1)
        for topic in TOPICS:
            log.create_topic(topic, self.partitions)
        self.feed(log, rng)

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        if self.to_open and rng.random() < 0.5:
            self._open(log)
        if rng.random() < 0.2:
            # A schema that some records were not readable without.
            self.registry.known.add(b"second")
        producer = log.backend("application").producer(f"application-{rng.randrange(3)}")
        log.hook, hook = None, log.hook
        try:
            producer.init()
            producer.begin()
            for _ in range(rng.randint(1, 12)):
                self._feed_one(log, rng)
            # Aborted records and markers take offsets, and are never rows.
            producer.produce(
                [Record(rng.choice(TOPICS), b"first", b"k%d" % rng.randrange(9)) for _ in range(2)]
            )
            producer.abort()
        finally:
            log.hook = hook

    def _feed_one(self, log: MemoryLog, rng: random.Random) -> None:
        topic, partition = rng.choice(TOPICS), rng.randrange(self.partitions)
        if rng.random() < 0.15:
            record = watermark_record(topic, partition, 5)
            log.append(topic, record.value, record.key, record.headers, partition)
            return
        value = rng.choice([b"first", b"first", b"second", b"never"])
        self.fed[log.append(topic, value, partition=partition)] = value

    def _open(self, log: MemoryLog) -> None:
        topic = self.to_open.pop(0).encode()
        self.fed[log.append(CONTRACTS, topic)] = b"contracts"

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        while self.to_open:
            self._open(log)
        self.registry.away = self.trouble = 0.0
        for client in self.clients:
            client.trouble = 0.0

    def process(self, backend: Backend, clock: MemoryClock, transactional_id: str) -> Sink:
        log, name = clock.log, clock.name
        client = StoreClient(self.store, log, name, self.rng, self.trouble)
        self.clients.append(client)
        return Sink(
            backend,
            GrowingRows(self.registry),
            client,
            group=self.group,
            clock=clock,
            linger_s=0.02,
            max_rows=self.max_batch,
        )

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, (CONTRACTS, *TOPICS)) and sum(
            map(len, self.store.tables.values())
        ) >= len(self.fed)

    def check(self, log: MemoryLog) -> None:
        stored: Counter[RecordRef] = Counter()
        for table, rows in self.store.tables.items():
            for row, coordinates in zip(rows, self.store.coordinates(table), strict=True):
                source = RecordRef(*coordinates)
                stored[source] += 1
                value = self.fed[source]
                assert table == value.decode() or (table == UNREADABLE and value in (b"second", b"never"))
                assert table in ("contracts",) or row["value"] == value
        assert stored == Counter(dict.fromkeys(self.fed, 1)), "as many rows as records, each once"
        for tp, committed in log.committed(self.group).items():
            assert committed.metadata == "", f"{tp}: a plan is left"


MODEL = """
model: credit
owner: {{team: risk}}
features:
  income: {{type: number}}
{more}
target: {{name: defaulted, type: boolean}}
"""
REVISIONS = [
    load_contract(MODEL.format(more=more))
    for more in ("", "  age: {type: integer}", "  debt: {type: number}")
]
LANE = Lane("credit")


class Catching(MemoryRegistry):
    """A registry whose ids count from what the next registration will get."""

    def next_id(self) -> int:
        return len(self._texts) + 1


class ReadingContracts(Storing):
    """The sink's own reader: schemas and contracts come while records that need them are already there."""

    group = "sink"

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.rng = rng
        self.trouble = rng.choice([0.0, 0.05, 0.2])
        self.schemas = Catching()
        self.codec, self.control = Codec(self.schemas), Control(self.schemas)
        self.store = MemoryStore(
            {
                layout.table: [c.name for c in layout.columns]
                for layout in (UNREADABLE_LAYOUT, DEAD_LETTER_LAYOUT)
            }
            | {"contracts": [column.name for column in columns_of(cast(Any, control_schema("Contract")))]}
        )
        self.fed: dict[RecordRef, bytes] = {}
        self.clients: list[StoreClient] = []
        self.to_apply = list(REVISIONS)
        for topic in CONTROL_TABLES:
            log.create_topic(topic, 1)
        for topic in LANE.topics:
            log.create_topic(topic, self.partitions)
        self._apply(log)
        self.feed(log, rng)

    def _apply(self, log: MemoryLog) -> None:
        contract = self.to_apply.pop(0)
        follows = len(REVISIONS) - len(self.to_apply) - 1
        record = {
            "model": "credit",
            "revision": follows + 1,
            "follows": follows,
            "digest": contract.digest,
            "source_text": "",
            "resolved": contract.resolved_json,
            "applied_by": "me",
            "applied_at": 0,
        }
        self.fed[log.append(*self.control.record("Contract", record, b"credit"))] = b"contracts"

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        if self.to_apply and rng.random() < 0.3:
            self._apply(log)
        for _ in range(rng.randint(1, 12)):
            topic, value, table = self._record(rng)
            self.fed[log.append(topic, value, partition=rng.randrange(self.partitions))] = table

    def _record(self, rng: random.Random) -> tuple[str, bytes, bytes]:
        """A record, and the table where it belongs if it can be read at all by the time."""
        contract = rng.choice(REVISIONS)
        field = next((name for name in contract.features if name != "income"), "income")
        match rng.randrange(4):
            case 0:
                return LANE.requests, json.dumps({field: 1}).encode(), b"credit_requests"
            case 1:
                # Written with a schema that the registry may be told of later only.
                schema = lane_schemas(contract)[LANE.requests]
                known = f"{field}-requests"
                if rng.random() < 0.5:
                    schema_id = self.schemas.register(known, schema)
                    return LANE.requests, self.codec.encode(schema_id, {field: 1}), b"credit_requests"
                return (
                    LANE.requests,
                    b"\x00" + self.schemas.next_id().to_bytes(4, "big") + b"\x00" * 4,
                    b"credit_requests",
                )
            case 2:
                schema_id = self.schemas.register("labels", lane_schemas(REVISIONS[0])[LANE.labels])
                return LANE.labels, self.codec.encode(schema_id, {"defaulted": True}), b"credit_labels"
            case _:
                return rng.choice([LANE.requests, LANE.dead_letters]), b"?", b"unreadable"

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        while self.to_apply:
            self._apply(log)
        self.trouble = 0.0
        for client in self.clients:
            client.trouble = 0.0

    def process(self, backend: Backend, clock: MemoryClock, transactional_id: str) -> Sink:
        client = StoreClient(self.store, clock.log, clock.name, self.rng, self.trouble)
        self.clients.append(client)
        rows = RowReader(self.control.by("sink"), client, lambda: all_contracts(backend))
        return Sink(backend, rows, client, group=self.group, clock=clock, linger_s=0.02, max_rows=7)

    def done(self, log: MemoryLog) -> bool:
        topics = (*CONTROL_TABLES, *LANE.topics)
        return drained(log, self.group, topics) and sum(map(len, self.store.tables.values())) >= len(self.fed)

    def check(self, log: MemoryLog) -> None:
        stored: Counter[RecordRef] = Counter()
        for table in self.store.tables:
            for coordinates in self.store.coordinates(table):
                stored[RecordRef(*coordinates)] += 1
                assert table in (self.fed[RecordRef(*coordinates)].decode(), UNREADABLE)
        assert stored == Counter(dict.fromkeys(self.fed, 1)), "as many rows as records, each once"


def test_schemas_and_contracts_may_come_late() -> None:
    simulate(ReadingContracts, 80, long=500)


def test_rows_are_records_whatever_happens() -> None:
    simulate(Storing, 400, long=5_000)


def test_the_schedules_reach_what_they_are_about() -> None:
    """Repeated plans and unreadable records do occur; a simulation that never needs the tokens proves little."""
    scenarios: list[Storing] = []

    def scenario() -> Storing:
        scenarios.append(Storing())
        return scenarios[-1]

    simulate(scenario, 200)
    assert sum(s.store.repeated for s in scenarios) > 5
    assert sum(s.store.looked for s in scenarios) > 50
    assert sum(len(s.store.tables[UNREADABLE]) for s in scenarios) > 100


def sink_of(
    log: MemoryLog,
    store: MemoryStore,
    rows: GrowingRows,
    name: str = "sink",
    rng: random.Random | None = None,
) -> Sink:
    client = StoreClient(store, log, name, rng or random.Random(0), 0.0)
    return Sink(log.backend(name), rows, client, group="sink", clock=MemoryClock(log), linger_s=0.02)


def test_what_was_stored_as_unreadable_has_no_second_row_where_the_group_is_set_back() -> None:
    """As by a stalled instance whose first commit is taken when the group has no members."""
    log = MemoryLog()
    store = MemoryStore(
        {name: ["value"] for name in TABLES}
        | {UNREADABLE: [column.name for column in UNREADABLE_LAYOUT.columns]}
    )
    registry = Registry(random.Random(0))
    log.create_topic(CONTRACTS, 1)
    log.create_topic("one.requests", 1)
    log.append(CONTRACTS, b"one.requests")
    for value in (b"first", b"second"):
        log.append("one.requests", value)

    def stored(name: str) -> dict[str, int]:
        sink = sink_of(log, store, GrowingRows(registry), name)
        for _ in range(300):
            sink.step()
        sink.close()
        return {table: len(rows) for table, rows in store.tables.items()}

    expected = {"contracts": 1, "first": 1, "second": 0, UNREADABLE: 1}
    assert stored("before") == expected
    registry.known.add(b"second")
    log.backend("stranger").consumer("sink").commit({TopicPartition("one.requests", 0): Committed(0)})
    log.append("one.requests", b"second")
    assert stored("after") == expected | {"second": 1}


def test_where_the_group_is_set_back_by_one_record_that_has_no_second_row() -> None:
    log = MemoryLog()
    store = MemoryStore({name: ["value"] for name in TABLES} | {UNREADABLE: []})
    log.create_topic(CONTRACTS, 1)
    log.create_topic("one.requests", 1)
    log.append(CONTRACTS, b"one.requests")
    for round_ in range(3):
        log.append("one.requests", b"first")
        sink = sink_of(log, store, GrowingRows(Registry(random.Random(0))), f"sink-{round_}")
        for _ in range(300):
            sink.step()
        sink.close()
        assert [offset for _, _, offset in store.coordinates("first")] == list(range(round_ + 1))
        back = log.backend("stranger").consumer("sink")
        back.commit({TopicPartition("one.requests", 0): Committed(round_)})
        back.close()


class FailingOnce(GrowingRows):
    """Kafka is away when a record of the last partition is read for the first time."""

    failed = False

    def read(self, message: Message) -> Row | None:
        if message.topic() == "two.requests" and not self.failed:
            self.failed = True
            raise Retriable("away")
        return super().read(message)


def test_what_was_read_when_another_partition_failed_is_stored() -> None:
    log = MemoryLog()
    store = MemoryStore({name: ["value"] for name in TABLES} | {UNREADABLE: []})
    rows = FailingOnce(Registry(random.Random(0)))
    log.create_topic(CONTRACTS, 1)
    for topic in ("one.requests", "two.requests"):
        log.create_topic(topic, 1)
        log.append(CONTRACTS, topic.encode())
        log.append(topic, b"first")
    sink = sink_of(log, store, rows)
    for _ in range(300):
        sink.step()
    assert rows.failed
    assert len(store.tables["first"]) == 2


def test_what_kafka_has_forgotten_is_not_read_and_inserted_again() -> None:
    log, rng = MemoryLog(), random.Random(0)
    store = MemoryStore({name: ["value"] for name in TABLES} | {UNREADABLE: []})
    log.create_topic(CONTRACTS, 1)
    sink = sink_of(log, store, GrowingRows(Registry(rng)), rng=rng)

    def stored_after(fed: int) -> int:
        log.append(CONTRACTS, b"contracts-%d" % fed)
        for _ in range(400):
            sink.step()
            assert all(committed.offset >= fed - 1 for committed in log.committed("sink").values())
        return len(store.tables["contracts"])

    assert stored_after(1) == 1
    log.forget("sink", {}, log.now_ms + 30_000)
    log.pass_time(10_000)
    assert stored_after(2) == 2


def test_a_plan_that_its_metadata_cuts_short_stores_each_record_once() -> None:
    """So many unreadable records, each for itself, that one commit's metadata cannot name them."""
    log = MemoryLog()
    store = MemoryStore(
        {name: ["value"] for name in TABLES}
        | {UNREADABLE: [column.name for column in UNREADABLE_LAYOUT.columns]}
    )
    log.create_topic(CONTRACTS, 1)
    log.create_topic("one.requests", 1)
    log.append(CONTRACTS, b"one.requests")
    for number in range(4_000):
        log.append("one.requests", b"first" if number % 2 else b"never")
    sink = sink_of(log, store, GrowingRows(Registry(random.Random(0))))
    for _ in range(400):
        sink.step()
    assert len(store.tokens["first"]) > 1, "one plan would have held them all"
    for table, odd in (("first", 1), (UNREADABLE, 0)):
        offsets = [offset for _, _, offset in store.coordinates(table)]
        assert sorted(offsets) == list(range(odd, 4_000, 2))


class PoisonedRows(GrowingRows):
    """Every value is a row of one table."""

    def read(self, message: Message) -> Row | None:
        if message.topic() == CONTRACTS:
            return super().read(message)
        return Row(message, LAYOUTS["first"], {"value": message.value()})


class Killed(BaseException):
    """The process is gone: nothing that it might have caught."""


class PoisonedClient(StoreClient):
    """What has ``poison`` in it, it cannot write."""

    error: BaseException | None = None

    def insert(
        self, table: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], token: str
    ) -> None:
        if self.error is not None and table == "first" and b"poison" in columns["value"]:
            raise self.error
        super().insert(table, columns, types, token)


class PoisonedWorld:
    """A log with a record that cannot be written, and one sink after the other."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self.log = MemoryLog()
        self.store = MemoryStore(
            {name: ["value"] for name in TABLES}
            | {UNREADABLE: [column.name for column in UNREADABLE_LAYOUT.columns]}
        )
        self.reported: list[tuple[str, str]] = []
        self.log.create_topic(CONTRACTS, 1)
        for topic in ("one.requests", "two.requests"):
            self.log.create_topic(topic, 1)
            self.log.append(CONTRACTS, topic.encode())
        for value in values:
            self.log.append("one.requests", value)
            self.log.append("two.requests", b"fine")
        self.sinks = 0

    def run(self, error: BaseException | None) -> BaseException | None:
        """One process, for a while; what it died of."""
        self.sinks += 1
        name = f"sink-{self.sinks}"
        client = PoisonedClient(self.store, self.log, name, random.Random(0), 0.0)
        client.error = error
        sink = Sink(
            self.log.backend(name),
            PoisonedRows(Registry(random.Random(0))),
            client,
            group="sink",
            clock=MemoryClock(self.log, name),
            report=lambda message, reason: self.reported.append((str(RecordRef.of(message)), reason)),
            linger_s=0.02,
        )
        try:
            for _ in range(400):
                sink.step()
        except (Exception, Killed) as death:
            return death
        finally:
            sink.close()
            self.log.pass_time(60_000)
        return None

    def offsets(self, table: str) -> list[tuple[str, int]]:
        return sorted((topic, offset) for topic, _, offset in self.store.coordinates(table))

    def is_settled(self) -> bool:
        return all(committed.metadata == "" for committed in self.log.committed("sink").values())


POISON = 11
VALUES = [b"fine"] * POISON + [b"poison"] + [b"fine"] * 12


@pytest.mark.parametrize(
    ("error", "deaths"),
    [
        (TypeError("no bytes for it"), 3),
        (QueryFailed("type mismatch", 53, "TYPE_MISMATCH"), 3),
        (Killed(), None),
    ],
)
def test_a_record_that_cannot_be_written_is_looked_for_and_stored_as_unreadable(
    error: BaseException, deaths: int | None
) -> None:
    world = PoisonedWorld(VALUES)
    died = 0
    while world.run(error) is not None:
        died += 1
        assert died < 20
    assert deaths is None or died == deaths
    every = [(topic, offset) for topic in ("one.requests", "two.requests") for offset in range(len(VALUES))]
    assert world.offsets("first") == [place for place in every if place != ("one.requests", POISON)]
    (row,) = world.store.tables[UNREADABLE]
    assert (row["_topic"], row["_offset"], row["code"], row["value"]) == (
        "one.requests", POISON, "unwritable", b"poison",
    )  # fmt: skip
    assert [place for place, _ in world.reported] == [f"one.requests/0/{POISON}"]
    assert world.is_settled()
    world.log.append("one.requests", b"fine")
    assert world.run(error) is None
    assert len(world.offsets("first")) == 2 * len(VALUES)


@pytest.mark.parametrize(
    "error",
    [
        QueryFailed("Not enough privileges", 497, "ACCESS_DENIED"),
        Unavailable("away"),
        Retriable("Kafka is away"),
        OSError(errno.ENOSPC, "No space left on device"),
        TailraceError("ClickHouse refuses the user"),
    ],
)
def test_no_record_is_to_be_blamed_for_what_fails_whatever_the_record(error: Exception) -> None:
    world = PoisonedWorld(VALUES)
    for _ in range(9):
        world.run(error)
    assert world.run(None) is None
    assert len(world.offsets("first")) == 2 * len(VALUES)
    assert world.store.tables[UNREADABLE] == []
    assert world.reported == []
    assert world.is_settled()
