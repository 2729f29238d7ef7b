"""Windows on a real broker, whose instances are killed: the reports are those of the whole log at once."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.producing import produce
from tests.support.toy_windows import (
    COUNTED,
    LANE,
    REPORTS,
    Feeder,
    contract_records,
    expected_reports,
    reports,
)
from tests.support.waiting import PATIENCE_S

from tailrace.connection import Connection
from tailrace.contracts.records.lanes import CONTRACTS, WINDOW_PARTS, WINDOW_STATE
from tailrace.local.kafka import LocalKafka
from tailrace.local.process import Process
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.records import Message, Record

PARTITIONS = 3
KILLS = 3


class Everything:
    """All that is committed in the log at the time of making."""

    def __init__(self, connection: Connection) -> None:
        self._messages: dict[str, list[Message]] = defaultdict(list)
        for message in read_all(connection, [*COUNTED, REPORTS]):
            self._messages[message.topic()].append(message)

    def topics(self) -> Mapping[str, int]:
        return dict.fromkeys(COUNTED, PARTITIONS)

    def messages(self, topic: str, partition: int | None = None) -> Sequence[Message]:
        return [m for m in self._messages[topic] if partition in (None, m.partition())]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalKafka]:
    """One of this test's own, since all services share the topics of windows."""
    kafka = LocalKafka(tmp_path / "kafka")
    kafka.start()
    yield kafka
    kafka.stop()


def write(producer: Producer, records: Sequence[Record]) -> None:
    for record in records:
        produce(producer, record)
    producer.flush()


def test_reports_equal_a_computation_over_the_whole_log(broker: LocalKafka, tmp_path: Path) -> None:
    servers = {"bootstrap.servers": broker.bootstrap}
    connection = Connection(kafka=servers, registry="")
    single = [NewTopic(topic, 1) for topic in (CONTRACTS, WINDOW_PARTS, WINDOW_STATE, REPORTS)]
    topics = [*single, *(NewTopic(topic, PARTITIONS) for topic in (*COUNTED, LANE.dead_letters))]
    admin = AdminClient(servers)
    for created in admin.create_topics(topics).values():
        created.result()
    rng = random.Random(1)
    producer = Producer(servers)
    feeder = Feeder(rng, PARTITIONS)
    write(producer, contract_records())
    feeder.all_contracts = True

    env = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "TAILRACE_HOME": str(tmp_path)}
    instances = [
        Process([sys.executable, "-m", "tests.support.toy_service", name], tmp_path / f"{name}.log", env)
        for name in ("one", "two", "three")
    ]
    for instance in instances:
        instance.launch()
    try:
        for kill in range(KILLS):
            written = len(Everything(connection).messages(REPORTS))
            deadline = time.monotonic() + PATIENCE_S
            while len(Everything(connection).messages(REPORTS)) < written + 20:
                write(producer, feeder.some())
                assert time.monotonic() < deadline, instances[0].last_words()
            victim = instances[kill % len(instances)]
            victim.kill()
            victim.launch()
        write(producer, feeder.tick(1_000_000))
        expected = expected_reports(Everything(connection))
        deadline = time.monotonic() + PATIENCE_S
        while len(reports(Everything(connection))) < len(expected):
            assert time.monotonic() < deadline, instances[0].last_words()
            time.sleep(0.1)
    finally:
        for instance in instances:
            instance.stop(10)
    assert reports(Everything(connection)) == expected
    assert len(expected) > 20 * KILLS
