"""The sink under thousands of seeded schedules: as many rows as records, each where it belongs, none twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter

from tests.support.memory_store import MemoryStore, StoreClient
from tests.support.simulation import Scenario, drained, simulate

from tailrace.contracts.lanes import CONTRACTS
from tailrace.kit.errors import BadRecord, Retry
from tailrace.kit.log import Backend
from tailrace.kit.marks import mark, mark_time
from tailrace.kit.memory_log import MemoryClock, MemoryLog
from tailrace.kit.messages import Message, Record, Source
from tailrace.kit.tables import UNREADABLE, Column
from tailrace.sink.loop import Sink
from tailrace.sink.rows import UNREADABLE_LAYOUT, Layout, Row

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
        if mark_time(message) is not None:
            return None
        if self.registry.rng.random() < self.registry.away:
            raise Retry("the registry is away")
        value = message.value() or b""
        if message.topic() == CONTRACTS:
            return Row(message, LAYOUTS["contracts"], {"value": value})
        if value not in self.registry.known:
            raise BadRecord("unknown-schema", "not registered yet")
        return Row(message, LAYOUTS[value.decode()], {"value": value})


LAYOUTS = {name: Layout(name, (Column("value", "String", itemgetter("value")),)) for name in TABLES}


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
        self.fed: dict[Source, bytes] = {}
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
            record = mark(topic, partition, 5)
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
            max_rows=7,
        )

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, (CONTRACTS, *TOPICS)) and sum(
            map(len, self.store.tables.values())
        ) >= len(self.fed)

    def check(self, log: MemoryLog) -> None:
        stored: Counter[Source] = Counter()
        for table, rows in self.store.tables.items():
            for row, coordinates in zip(rows, self.store.coordinates(table), strict=True):
                source = Source(*coordinates)
                stored[source] += 1
                value = self.fed[source]
                assert table == value.decode() or (table == UNREADABLE and value in (b"second", b"never"))
                assert table in ("contracts",) or row["value"] == value
        assert stored == Counter(dict.fromkeys(self.fed, 1)), "as many rows as records, each once"
        for tp, committed in log.committed(self.group).items():
            assert committed.metadata == "", f"{tp}: a plan is left"


def test_rows_are_records_whatever_happens() -> None:
    simulate(Storing)


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
