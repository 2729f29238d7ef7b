"""Reading history for longer than a member of a group may go without polling."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.log_conformance import Echo
from tests.support.simulation import quarantine
from tests.support.waiting import PATIENCE_S

from tailrace.connection import Connection
from tailrace.local.kafka import LocalKafka
from tailrace.streaming.backends.abstract import Committed, History
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.backends.kafka.consumer import SESSION_TIMEOUT_MS
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.time_source import SystemClock

SOURCE, TARGET, STATE = "restore.requests", "restore.answers", "restore.state"


class Restoring(Echo):
    def __init__(self) -> None:
        super().__init__(SOURCE, TARGET)
        self.assignments = 0
        self.gone: list[TopicPartition] = []
        self.restored: list[bytes | None] = []

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> History:  # type: ignore[override]
        self.assignments += 1
        return {TopicPartition(STATE, 0): (0, None)}

    def restore(self, messages: Sequence[Message]) -> None:
        self.restored += [message.value() for message in messages]

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.gone += partitions


def test_who_reads_history_stays_a_member(kafka: LocalKafka) -> None:
    servers = {"bootstrap.servers": kafka.bootstrap}
    admin = AdminClient(servers)
    for created in admin.create_topics([NewTopic(name, 1) for name in (SOURCE, TARGET, STATE)]).values():
        created.result()
    producer = Producer(servers)
    producer.produce(SOURCE, b"request")
    producer.flush()
    # History does not come to its end while this transaction is open.
    holding = Producer(servers | {"transactional.id": "restore-state"})
    holding.init_transactions()
    holding.begin_transaction()
    holding.produce(STATE, b"state")
    holding.flush()

    connection = Connection(kafka=servers, registry="")
    processor = Restoring()
    loop = ExactlyOnceRunner(
        KafkaBackend(connection, "restore", batch_s=SESSION_TIMEOUT_MS / 1000),
        processor,
        service="restore",
        group="restore",
        transactional_id="restore",
        clock=SystemClock(),
        quarantine=quarantine,
    )
    began = time.monotonic()
    while time.monotonic() < began + 1.5 * SESSION_TIMEOUT_MS / 1000:
        loop.step()
    assert (processor.assignments, processor.gone, processor.restored) == (1, [], [])
    assert loop.waiting == "reading again what restore.requests/0 stand for"
    holding.commit_transaction()
    deadline = time.monotonic() + PATIENCE_S
    while not [m.value() for m in read_all(connection, TARGET)]:
        assert time.monotonic() < deadline, loop.waiting
        loop.step()
    assert (processor.assignments, processor.gone, processor.restored) == (1, [], [b"state"])
    loop.close()
