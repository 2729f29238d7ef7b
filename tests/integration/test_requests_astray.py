"""A request that its client has given up and made again arrives after all, when the next transaction is under way."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.proxied_kafka import ProxiedKafka
from tests.support.tcp_proxy import ARRIVES_S, END_TXN, TXN_OFFSET_COMMIT, Harm
from tests.support.waiting import until_initiated

from tailrace.connection import Connection
from tailrace.streaming.backends.abstract import Committed, Membership
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.backends.kafka.producer import KafkaProducer
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.records import Record, TopicPartition

LATE_S = 2.5
REQUESTS = TopicPartition("astray.requests", 0)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedKafka]:
    broker = ProxiedKafka(tmp_path_factory.mktemp("astray"))
    broker.proxy.start()
    broker.start()
    yield broker
    broker.stop()
    broker.proxy.stop()


class Answering:
    """One that answers requests, each in a transaction with the offset behind it."""

    def __init__(self, kafka: ProxiedKafka, name: str) -> None:
        self.topic = f"astray.{name}"
        self._group = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": name})
        self._membership = Membership("", self._group.consumer_group_metadata())
        self._connection = Connection(kafka={"bootstrap.servers": kafka.bootstrap}, registry="")
        admin = AdminClient(self._connection.kafka)
        topics = [topic for topic in (self.topic, REQUESTS.topic) if topic not in admin.list_topics().topics]
        for made in admin.create_topics([NewTopic(topic, 1) for topic in topics]).values():
            made.result()
        proxied = Connection(kafka={"bootstrap.servers": kafka.proxy.address}, registry="")
        self.producer = KafkaBackend(proxied, name).producer(name)
        assert isinstance(self.producer, KafkaProducer)
        until_initiated(self.producer)

    def close(self) -> None:
        self._group.close()
        self.producer.close()

    def answer(self, value: bytes) -> None:
        self.producer.begin()
        self.producer.produce([Record(self.topic, value)])
        self.producer._client.flush()

    def commit(self, offset: int) -> None:
        self.send(offset)
        self.producer.commit()

    def send(self, offset: int) -> None:
        self.producer.send_offsets({REQUESTS: Committed(offset)}, self._membership)

    def readable(self) -> list[bytes | None]:
        """The answers that are committed by now, though others are not."""
        reader = Consumer(
            {**self._connection.kafka, "group.id": self.topic, "isolation.level": "read_committed"}
        )
        reader.assign([Place(self.topic, 0, 0)])
        messages = [reader.poll(10), *reader.consume(10, 0.3)]
        reader.close()
        return [message.value() for message in messages if message is not None]

    def seen(self) -> tuple[list[bytes | None], int]:
        """What everybody sees: the answers, and the offset."""
        answers = [message.value() for message in read_all(self._connection, self.topic)]
        return answers, self._group.committed([Place(*REQUESTS)], timeout=10)[0].offset


def test_a_commit_that_went_astray_commits_nothing_else(
    kafka: ProxiedKafka, request: pytest.FixtureRequest
) -> None:
    answering = Answering(kafka, "commits")
    request.addfinalizer(answering.close)
    harm = sent_astray(kafka, answering, END_TXN)
    arrived(harm)
    assert answering.readable() == [b"a"]
    answering.commit(2)
    assert answering.seen() == ([b"a", b"b"], 2)


def test_offsets_that_went_astray_set_nothing_back(
    kafka: ProxiedKafka, request: pytest.FixtureRequest
) -> None:
    answering = Answering(kafka, "offsets")
    request.addfinalizer(answering.close)
    harm = sent_astray(kafka, answering, TXN_OFFSET_COMMIT)
    answering.send(2)
    arrived(harm)
    answering.producer.commit()
    assert answering.seen() == ([b"a", b"b"], 2)


def test_an_epoch_lasts_while_nothing_is_lost(kafka: ProxiedKafka, request: pytest.FixtureRequest) -> None:
    """A new one costs a new connection."""
    answering = Answering(kafka, "calm")
    request.addfinalizer(answering.close)
    client = answering.producer._client
    for number in range(1, 4):
        answering.answer(b"%d" % number)
        answering.commit(number)
    assert answering.producer._client is client


def sent_astray(kafka: ProxiedKafka, answering: Answering, request: int) -> Harm:
    """A first transaction has been committed without the request, which is still on its way, and a second is begun."""
    answering.answer(b"a")
    harm = kafka.proxy.harm(Harm((request,), "astray", LATE_S))
    answering.commit(1)
    assert harm.done.is_set()
    answering.answer(b"b")
    return harm


def arrived(harm: Harm) -> None:
    assert time.time() < harm.at + LATE_S, "it has been there before"
    time.sleep(harm.at + LATE_S + ARRIVES_S - time.time())
