"""A cluster as `verify` reads it: records within known bounds, committed offsets, offsets by time, compaction."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaError
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from tailrace.connection import Connection
from tailrace.errors import TailraceError
from tailrace.streaming.backends.kafka.clients import reader_options
from tailrace.streaming.backends.kafka.errors import asking
from tailrace.streaming.records import Message, TopicPartition

_EARLIEST, _LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
_ANSWER_S = 20.0
_STALL_S = 60.0
_BATCH = 5_000


class OffsetRange(NamedTuple):
    """Offsets of a partition: from ``low``, the first retained, up to but without ``end``."""

    low: int
    end: int


class Log:
    """A cluster, until it is closed. Every method raises `Unavailable` where Kafka does not answer."""

    def __init__(self, connection: Connection) -> None:
        self._kafka, self._name = connection.kafka, f"Kafka at {connection.bootstrap}"
        self._open = ExitStack()
        self._admin = self._open.enter_context(AdminClient(dict(connection.kafka)))

    def close(self) -> None:
        self._open.close()

    def retained(self, topics: Collection[str]) -> dict[TopicPartition, OffsetRange]:
        """What the partitions of those of the topics that exist hold now.

        The end is that of the log, open transactions included: a commit can return before its records are
        readable, so the end that a read_committed consumer is shown may be too low.
        """
        with asking(self._name):
            known = self._admin.list_topics(timeout=_ANSWER_S).topics
            places = [TopicPartition(t, p) for t in topics if t in known for p in sorted(known[t].partitions)]
            lows, ends = self._offsets(places, _EARLIEST), self._offsets(places, _LATEST)
        return {p: OffsetRange(lows[p], ends[p]) for p in places}

    def read(self, ranges: Mapping[TopicPartition, OffsetRange]) -> Iterator[Message]:
        """Every committed record of these ranges, each partition in order.

        Raises:
            TailraceError: a partition's end cannot be reached, or retention deleted what was to be read.
        """
        behind = {p for p, r in ranges.items() if r.low < r.end}
        if not behind:
            return
        consumer = Consumer(reader_options(self._kafka, "tailrace-verify"))
        try:
            consumer.assign([Place(*p, ranges[p].low) for p in behind])
            moved = time.monotonic()
            while behind:
                batch: list[Any] = consumer.consume(_BATCH, 0.05)
                if batch:
                    moved = time.monotonic()
                elif time.monotonic() - moved > _STALL_S:
                    shown = ", ".join(f"{p.topic}/{p.partition}" for p in sorted(behind)[:5])
                    raise TailraceError(f"no end of {shown} for {_STALL_S:g} s: is a transaction left open?")
                for message in batch:
                    partition = TopicPartition(message.topic(), message.partition())
                    if partition not in behind or (position := _position(message)) is None:
                        continue
                    if message.error() is None and message.offset() < ranges[partition].end:
                        yield message
                    if position >= ranges[partition].end:
                        behind.discard(partition)
                        consumer.pause([Place(*partition)])
        finally:
            consumer.close()

    def compacted(self, topic: str) -> bool:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        with asking(self._name):
            config = self._admin.describe_configs([resource])[resource].result(_ANSWER_S)
        return "compact" in str(config["cleanup.policy"].value)

    def committed(
        self, group: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        """What the group has committed; None where it has not."""
        if not partitions:
            return {}
        asked = ConsumerGroupTopicPartitions(group, [Place(*p) for p in partitions])
        with asking(self._name):
            answer = self._admin.list_consumer_group_offsets([asked])[group].result(_ANSWER_S)
        offsets = {(p.topic, p.partition): p.offset for p in answer.topic_partitions or [] if p.offset >= 0}
        return {p: offsets.get(p) for p in partitions}

    def offsets_at(
        self, time_ms: int, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        """The first offset that was appended at this time or later; None where there is none."""
        if not partitions:
            return {}
        asked = {Place(*p): OffsetSpec.for_timestamp(time_ms) for p in partitions}
        with asking(self._name):
            futures = self._admin.list_offsets(asked, request_timeout=_ANSWER_S)
            offsets = {(p.topic, p.partition): f.result(_ANSWER_S).offset for p, f in futures.items()}
        return {p: offsets[p] if offsets[p] >= 0 else None for p in partitions}

    def _offsets(self, partitions: Collection[TopicPartition], spec: Any) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        futures = self._admin.list_offsets(
            {Place(*p): spec for p in partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=_ANSWER_S,
        )
        return {TopicPartition(p.topic, p.partition): f.result(_ANSWER_S).offset for p, f in futures.items()}


def _position(message: Any) -> int | None:
    """The offset up to which the partition has been read; None where the message is news of another kind.

    An end of partition counts too: what comes before it may be markers, aborted, or compacted away.
    """
    error = message.error()
    if error is None:
        return int(message.offset()) + 1
    if error.code() == KafkaError._PARTITION_EOF:
        return int(message.offset())
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        raise TailraceError(f"retention deleted records while they were read ({error.str()}): run it again")
    return None  # librdkafka says so and tries again by itself
