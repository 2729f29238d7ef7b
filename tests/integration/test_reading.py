from __future__ import annotations

import uuid

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.waiting import until_initiated

from tailrace.connection import Connection
from tailrace.errors import TailraceError
from tailrace.local.kafka import LocalKafka
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.backends.kafka.reading import TopicReader, read_all, read_at
from tailrace.streaming.records import Record, TopicPartition


@pytest.fixture
def connection(kafka: LocalKafka) -> Connection:
    return Connection(kafka={"bootstrap.servers": kafka.bootstrap}, registry="")


@pytest.fixture
def topic(connection: Connection) -> str:
    """A topic of two partitions, each with 0 to 9 committed in transactions, some aborted records between."""
    name = f"reading-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(connection.kafka)
    admin.create_topics([NewTopic(name, 2)])[name].result()
    producer = KafkaBackend(connection, "reading").producer(name)
    until_initiated(producer)
    for number in range(10):
        producer.begin()
        producer.produce([Record(name, b"%d" % number, None, (), partition) for partition in (0, 1)])
        producer.commit()
        if number % 4 == 0:
            producer.begin()
            producer.produce([Record(name, b"aborted", None, (), 0)])
            producer.abort()
    return name


def test_all_is_read_to_the_real_end_at_once_after_the_commit(connection: Connection, topic: str) -> None:
    found = list(read_all(connection, topic))
    for partition in (0, 1):
        values = [m.value() for m in found if m.partition() == partition]
        assert values == [b"%d" % number for number in range(10)]


def test_single_messages_are_read_at_their_places(connection: Connection, topic: str) -> None:
    everything = {(m.partition(), m.offset()): m.value() for m in read_all(connection, topic)}
    places = sorted(everything)[3:17:4]
    messages = read_at(connection, topic, [*places, (0, 10_000)])
    assert {place: message.value() for place, message in messages.items()} == {
        place: everything[place] for place in places
    }
    assert read_at(connection, topic, []) == {}


def test_a_reader_follows_from_where_it_is_told(connection: Connection, topic: str) -> None:
    last = max(m.offset() for m in read_all(connection, topic) if m.partition() == 1)
    reader = TopicReader(connection, topic, starts={TopicPartition(topic, 1): last}, from_end=True)
    values: list[bytes | None] = []
    while b"9" not in values:
        values += [m.value() for m in reader.poll(0.5)]
    producer = confluent_kafka.Producer(connection.kafka)
    producer.produce(topic, b"new", partition=0)
    producer.flush()
    while b"new" not in values:
        values += [m.value() for m in reader.poll(0.5)]
    reader.close()
    assert values == [b"9", b"new"]


def test_a_topic_that_does_not_exist_is_named(connection: Connection) -> None:
    with pytest.raises(TailraceError, match="no-such-topic"):
        list(read_all(connection, "no-such-topic"))
