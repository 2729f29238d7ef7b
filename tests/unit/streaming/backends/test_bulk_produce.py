"""Where the client keeps librdkafka's handle, and what does not go that way. What is written, the log's suite says."""

from __future__ import annotations

from collections.abc import Iterator

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.streaming.backends.kafka import bulk_produce
from tailrace.streaming.backends.kafka.clients import end
from tailrace.streaming.records import Records


def columns(count: int, topic: str = "topic") -> Records:
    return Records(topic, BytesColumn.of([b"value"] * count), BytesColumn.of([b"key"] * count))


@pytest.fixture
def client() -> Iterator[confluent_kafka.Producer]:
    """With no broker, so it keeps what it is given."""
    producer = confluent_kafka.Producer({"client.id": "by-name", "message.max.bytes": 1_000})
    yield producer
    end(producer)


def test_the_handle_is_the_clients(client: confluent_kafka.Producer) -> None:
    """Another version of the client: look up where its `Handle` has the rd_kafka_t, and measure."""
    assert bulk_produce.KNOWN
    name = bulk_produce.library().rd_kafka_name(bulk_produce.handle(client))
    assert name.startswith(b"by-name#producer-")


def test_records_are_in_the_clients_queue(client: confluent_kafka.Producer) -> None:
    assert bulk_produce.fits(client, columns(7))
    bulk_produce.produce(client, columns(7))
    bulk_produce.produce(client, columns(0))
    assert len(client) == 7


def test_what_could_fill_the_queue_goes_one_by_one(
    client: confluent_kafka.Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_produce, "MOST", 10)
    bulk_produce.produce(client, columns(6))
    assert bulk_produce.fits(client, columns(4))
    assert not bulk_produce.fits(client, columns(5))
    monkeypatch.setattr(bulk_produce, "MOST_BYTES", 31)
    with confluent_kafka.Producer({}) as empty:
        assert not bulk_produce.fits(empty, columns(4))
        assert bulk_produce.fits(empty, columns(3))


def test_another_client_is_left_alone(
    client: confluent_kafka.Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not bulk_produce.fits(object(), columns(1))
    monkeypatch.setattr(bulk_produce, "KNOWN", False)
    assert not bulk_produce.fits(client, columns(1))


def test_what_is_not_taken_says_why(client: confluent_kafka.Producer) -> None:
    large = Records("topic", BytesColumn.of([b"a", bytes(1_001)]), BytesColumn.of([b"1", b"2"]))
    with pytest.raises(KafkaException) as raised:
        bulk_produce.produce(client, large)
    assert raised.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    with pytest.raises(KafkaException, match="no topic"):
        bulk_produce.produce(client, columns(1, "t" * 600))
