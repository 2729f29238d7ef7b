from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, closing

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.log_conformance import LogConformance

from tailrace.connection import Connection
from tailrace.local.kafka import LocalKafka
from tailrace.streaming.backends.abstract import Backend, TransactionalProducer
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.backends.kafka.clients import sending
from tailrace.streaming.backends.kafka.producer import KafkaProducer
from tailrace.streaming.time_source import SystemClock


class KafkaWorld:
    max_message_bytes = 1024 * 1024  # of a topic, of a batch

    def __init__(self, bootstrap: str) -> None:
        self.clock = SystemClock()
        self.connection = Connection(kafka={"bootstrap.servers": bootstrap}, registry="")
        self.names = itertools.count()
        self._open = ExitStack()
        self.admin = self._open.enter_context(AdminClient({"bootstrap.servers": bootstrap}))
        self.producer = self._open.enter_context(sending({"bootstrap.servers": bootstrap}))

    def close(self) -> None:
        self._open.close()

    def backend(self) -> Backend:
        backend = KafkaBackend(self.connection, f"conformance-{next(self.names)}")
        return self._open.enter_context(closing(backend))

    def create_topic(self, name: str, partitions: int) -> None:
        topic = NewTopic(name, partitions, config={"max.message.bytes": str(self.max_message_bytes)})
        for created in self.admin.create_topics([topic]).values():
            created.result()

    def append(self, topic: str, value: bytes, key: bytes | None = None, partition: int = 0) -> None:
        self.producer.produce(topic, value, key, partition=partition)
        assert self.producer.flush(30) == 0

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        place = confluent_kafka.TopicPartition(topic, partition, before)
        for deleted in self.admin.delete_records([place]).values():
            deleted.result()

    def flush(self, producer: TransactionalProducer) -> None:
        assert isinstance(producer, KafkaProducer)
        producer._client.flush()


class TestKafkaLog(LogConformance):
    @pytest.fixture
    def world(self, kafka: LocalKafka) -> Iterator[KafkaWorld]:
        with closing(KafkaWorld(kafka.bootstrap)) as made:
            yield made
