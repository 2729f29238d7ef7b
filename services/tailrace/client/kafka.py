"""The librdkafka options that every client of an application shares, and readers placed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tailrace.connection import Connection
from tailrace.errors import TailraceError
from tailrace.streaming.backends.kafka.clients import BoundedProducer, reader_options
from tailrace.streaming.records import Message

_WAIT_S = 10.0
_LARGEST = 1024 * 1024  # of a request, as its topic has it; librdkafka's own limit is a little lower

Start = Callable[[Consumer, TopicPartition], int]
"""Where to begin in a partition."""


def at_start(consumer: Consumer, place: TopicPartition) -> int:
    return _ends(consumer, place)[0]


def before_end(offsets: int) -> Start:
    """So many offsets before the end."""

    def start(consumer: Consumer, place: TopicPartition) -> int:
        low, end = _ends(consumer, place)
        return max(low, end - offsets)

    return start


at_end = before_end(0)


def since(append_time_ms: int) -> Start:
    """At the first record that was appended then or later."""

    def start(consumer: Consumer, place: TopicPartition) -> int:
        asked = TopicPartition(place.topic, place.partition, append_time_ms)
        offset: int = consumer.offsets_for_times([asked], timeout=_WAIT_S)[0].offset
        return offset if offset >= 0 else at_end(consumer, place)

    return start


def _ends(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    low, end = consumer.get_watermark_offsets(place, timeout=_WAIT_S, cached=False)
    return low, end


def producer(connection: Connection) -> BoundedProducer:
    """Idempotent, acknowledged by all in-sync replicas, partitioned as by Java and the services.

    Whoever asks for it closes it.
    """
    options = {"client.id": "tailrace-client", "linger.ms": 2, "message.max.bytes": _LARGEST}
    return BoundedProducer({**connection.kafka, **options})


class Follower:
    """Reads topics from a fixed position on, committed records only, outside any consumer group.

    The position is taken when it is made: what is written afterwards will be read.

    Raises:
        TailraceError: Kafka does not answer, or has no such topic.
    """

    def __init__(self, connection: Connection, topics: Sequence[str], start: Start = at_end) -> None:
        options = reader_options(connection.kafka, "tailrace-client-ungrouped")
        self._consumer = Consumer(options | {"client.id": "tailrace-client"})
        self._behind: set[tuple[str, int]] = set()
        self._begun: list[TopicPartition] = []
        try:
            places = [place for topic in topics for place in self._places(topic, start)]
        except KafkaException as error:
            self._consumer.close()
            reason = error.args[0].str()
            raise TailraceError(f"Kafka at {connection.bootstrap} does not answer: {reason}") from error
        self._consumer.assign(places)

    def _places(self, topic: str, start: Start) -> Iterator[TopicPartition]:
        metadata = self._consumer.list_topics(topic, timeout=_WAIT_S).topics[topic]
        if metadata.error is not None:
            reason = metadata.error.str()
            raise TailraceError(f"no topic {topic} ({reason}): `tailrace apply` makes a lane's topics")
        for partition in metadata.partitions:
            place = TopicPartition(topic, partition)
            place.offset = start(self._consumer, place)
            self._begun.append(TopicPartition(topic, partition, place.offset))
            self._behind.add((topic, partition))
            yield place

    def poll(self, timeout: float) -> Message | None:
        """The next record, or None where none came in time."""
        message: Any = self._consumer.poll(timeout)
        if message is None:
            return None
        if (error := message.error()) is None:
            return cast(Message, message)
        if error.code() == KafkaError._PARTITION_EOF:
            self._behind.discard((message.topic(), message.partition()))
        elif error.code() in _FATAL or error.fatal():
            raise TailraceError(f"reading failed: {error.str()}; start again from what is still retained")
        return None  # librdkafka reports and retries by itself what passes, such as a broker away

    def began_at_start(self) -> bool:
        """Whether nothing that is still retained was passed over."""
        return all(place.offset <= at_start(self._consumer, place) for place in self._begun)

    def caught_up(self) -> bool:
        """Whether the end of every partition has been reached once."""
        return not self._behind

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
