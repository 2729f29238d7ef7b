"""Reads single records by their coordinates."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, TopicPartition

from tailrace.kit.connection import Connection
from tailrace.kit.errors import TailraceError
from tailrace.kit.messages import Message, Source

_WAIT_S = 10.0
_NOT_THERE = (
    KafkaError._PARTITION_EOF,
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


def read_at(connection: Connection, sources: Iterable[Source]) -> dict[Source, Message]:
    """The committed records at these coordinates; those that are not there (any longer) are left out.

    Raises:
        TailraceError: Kafka does not answer.
    """
    wanted: dict[tuple[str, int], list[int]] = defaultdict(list)
    for source in set(sources):
        wanted[source.topic, source.partition].append(source.offset)
    if not wanted:
        return {}
    consumer = Consumer(
        {
            **connection.kafka,
            "group.id": "tailrace-lookup",  # librdkafka demands one; nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    found: dict[Source, Message] = {}
    try:
        for (topic, partition), offsets in wanted.items():
            _read(consumer, topic, partition, sorted(offsets), found)
    finally:
        consumer.close()
    return found


def _read(
    consumer: Consumer, topic: str, partition: int, offsets: list[int], found: dict[Source, Message]
) -> None:
    """Reads one partition's offsets in order, jumping over what lies between."""
    for offset in offsets:
        consumer.assign([TopicPartition(topic, partition, offset)])
        deadline = time.monotonic() + _WAIT_S
        while True:
            message: Any = consumer.poll(0.1)
            if message is None:
                if time.monotonic() > deadline:
                    raise TailraceError(
                        f"Kafka does not hand over {topic}/{partition}/{offset} within {_WAIT_S:.0f} s"
                    )
                continue
            if (error := message.error()) is None:
                if message.offset() == offset:
                    found[Source(topic, partition, offset)] = cast(Message, message)
                break  # at the offset, or past it: it was a marker, compacted or aborted
            if error.code() in _NOT_THERE:
                break
