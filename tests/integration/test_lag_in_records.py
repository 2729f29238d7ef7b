"""What a service has still to read is counted in records, whatever else has taken offsets."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.producing import produce

from tailrace.connection import Connection, connect
from tailrace.local import lag as module
from tailrace.local.kafka import LocalKafka
from tailrace.local.lag import Lag, OffsetsAhead, count_records
from tailrace.local.ports import free_port
from tailrace.streaming.records import TopicPartition
from tailrace.streaming.watermark_records import watermark_record


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted is tried here, not how fast a busy machine reads."""
    monkeypatch.setattr(module, "PATIENCE_S", 60.0)


@pytest.fixture(scope="module")
def topic(kafka: LocalKafka) -> str:
    """Partition 0: three transactions of a watermark record and two records, each with a marker at its end: twelve
    offsets, six records. Partition 1: one watermark record and its marker.
    """
    name = "lag-in-records"
    with AdminClient({"bootstrap.servers": kafka.bootstrap}) as admin:
        admin.create_topics([NewTopic(name, 2, 1)])[name].result(30)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": name})
    producer.init_transactions(30)
    for number in range(3):
        producer.begin_transaction()
        produce(producer, watermark_record(name, 0, number))
        producer.produce(name, b"record", partition=0)
        producer.produce(name, None, b"without a value, but no watermark record", partition=0)
        if number == 0:
            produce(producer, watermark_record(name, 1, number))
        producer.commit_transaction(30)
    return name


def _connection(bootstrap: str, home: Path) -> Connection:
    given = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1"}
    return connect(given, home)


def _ahead(topic: str, *of_partitions: tuple[int, int]) -> dict[TopicPartition, OffsetsAhead]:
    return {TopicPartition(topic, n): OffsetsAhead(*each) for n, each in enumerate(of_partitions)}


@pytest.mark.parametrize(
    ("ahead", "records"),
    [
        (((0, 12), (0, 2)), 6),
        (((4, 8), (2, 0)), 4),
        (((11, 1), (1, 1)), 0),
        (((8, 1),), 0),
        (((2, 1),), 1),
        (((12, 0), (2, 0)), 0),
    ],
)
def test_markers_and_watermark_records_are_no_lag(
    kafka: LocalKafka, topic: str, tmp_path: Path, ahead: tuple[tuple[int, int], ...], records: int
) -> None:
    connection = _connection(kafka.bootstrap, tmp_path)
    assert count_records(connection, _ahead(topic, *ahead)) == Lag(records, True)


def test_of_very_many_the_first_stand_for_all(
    kafka: LocalKafka, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_READ", 4)
    connection = _connection(kafka.bootstrap, tmp_path)
    assert count_records(connection, _ahead(topic, (0, 12), (0, 2))) == Lag(6, False)


def test_where_kafka_hands_nothing_over_offsets_are_said_to_be_no_count(
    topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.streaming.backends.kafka.reading._TIMEOUT_S", 0.3)
    connection = _connection(f"127.0.0.1:{free_port()}", tmp_path)
    assert count_records(connection, _ahead(topic, (0, 12))) == Lag(12, False)
    assert count_records(connection, _ahead(topic, (12, 0))) == Lag(0, True)
    assert count_records(None, _ahead(topic, (0, 12), (0, 2))) == Lag(14, False)
