"""A server that is written as a broker's listener leads every client there: librdkafka's, and aiokafka's in Faust."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tailrace.connection import connect
from tailrace.local.kafka import LocalKafka
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.records import Message
from tailrace.trainer.faust_app import make_app


@pytest.mark.parametrize("written", ["PLAINTEXT://{0}", "plaintext://{0}, PLAINTEXT://{0}", " {0} ,"])
def test_every_client_comes_to_servers_however_they_are_written(
    kafka: LocalKafka, tmp_path: Path, written: str
) -> None:
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": written.format(kafka.bootstrap),
        "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
    }
    connection, topic = connect(given, tmp_path), f"servers-{len(written)}"
    with AdminClient(connection.kafka) as admin:
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer = Producer(connection.kafka)
    producer.produce(topic, b"here")
    assert producer.flush(30) == 0
    assert [message.value() for message in read_all(connection, topic)] == [b"here"]

    async def read_by_faust() -> list[bytes | None]:
        values: list[bytes | None] = []

        async def take(message: Message) -> None:
            values.append(message.value())

        app = make_app(connection, topic, [topic], take, tmp_path / "faust")
        await app.start()
        try:
            async with asyncio.timeout(60):
                while not values:
                    await asyncio.sleep(0.05)
        finally:
            await app.stop()
        return values

    assert asyncio.run(read_by_faust()) == [b"here"]
