"""The librdkafka options that every client of an application's shares, and readers placed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from tailrace.kit.connection import Connection
from tailrace.kit.errors import TailraceError
from tailrace.kit.messages import Message

_WAIT_S = 10.0


def producer(connection: Connection) -> Producer:
    """Idempotent, acknowledged by all in-sync replicas, partitioned as the Java client and the services
    do.
    """
    return Producer(
        {
            **connection.kafka,
            "client.id": "tailrace-client",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 2,
        }
    )


class Follower:
    """Reads topics from a fixed position on, committed records only, outside any consumer group.

    The position is taken when it is made: what is written afterwards will be read.
    """

    def __init__(self, connection: Connection, topics: Sequence[str], from_start: bool = False) -> None:
        self._consumer = Consumer(
            {
                **connection.kafka,
                "client.id": "tailrace-client",
                "group.id": "tailrace-client-ungrouped",  # librdkafka demands one; nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
            }
        )
        try:
            places = [place for topic in topics for place in self._places(topic, from_start)]
        except KafkaException as error:
            self._consumer.close()
            raise TailraceError(
                f"Kafka at {connection.bootstrap} does not answer: {error.args[0].str()}"
            ) from error
        self._consumer.assign(places)

    def _places(self, topic: str, from_start: bool) -> Iterator[TopicPartition]:
        metadata = self._consumer.list_topics(topic, timeout=_WAIT_S).topics[topic]
        if metadata.error is not None:
            raise TailraceError(
                f"no topic {topic}: {metadata.error.str()}; `tailrace apply` makes a lane's topics"
            )
        for partition in metadata.partitions:
            place = TopicPartition(topic, partition, OFFSET_BEGINNING)
            if not from_start:
                place.offset = self._consumer.get_watermark_offsets(place, timeout=_WAIT_S, cached=False)[1]
            yield place

    def poll(self, timeout: float) -> Message | None:
        """The next record, or None where none came in time."""
        message: Any = self._consumer.poll(timeout)
        if message is None:
            return None
        if (error := message.error()) is None:
            return cast(Message, message)
        if error.code() in _FATAL or error.fatal():
            raise TailraceError(
                f"reading failed: {error.str()}; start again from a position that is still retained"
            )
        return None  # librdkafka reports and retries by itself what passes, such as a broker away

    def close(self) -> None:
        self._consumer.close()


_FATAL = (
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)
