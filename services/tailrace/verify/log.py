"""Reads topics for verification: all that is committed, from the first retained record to the real end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from tailrace.kit import messages
from tailrace.kit.connection import Connection
from tailrace.kit.errors import TailraceError

_EARLIEST, _LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
_WAIT_S = 20.0
_STALL_S = 60.0
_BATCH = 5_000

Partition = messages.TopicPartition


class Range(NamedTuple):
    """Offsets of a partition that were read: from ``low``, the first retained, up to but without ``end``."""

    low: int
    end: int


class Log:
    """A cluster as `verify` reads it.

    Raises:
        TailraceError: by every method, where Kafka does not answer.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._admin = AdminClient(dict(connection.kafka))

    def partitions(self, topics: Collection[str]) -> list[Partition]:
        """The partitions of those of the topics that exist."""
        with _asking(self._connection):
            found = self._admin.list_topics(timeout=_WAIT_S).topics
        return [Partition(t, p) for t in topics if t in found for p in sorted(found[t].partitions)]

    def compacted(self, topic: str) -> bool:
        with _asking(self._connection):
            resource = ConfigResource(ResourceType.TOPIC, topic)
            config = self._admin.describe_configs([resource])[resource].result(_WAIT_S)
        return "compact" in str(config["cleanup.policy"].value)

    def committed(self, group: str, partitions: Collection[Partition]) -> dict[Partition, int | None]:
        """What the group has committed; None where it has not."""
        asked = [TopicPartition(*p) for p in partitions]
        if not asked:
            return {}
        with _asking(self._connection):
            futures = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, asked)])
            answer = futures[group].result(_WAIT_S).topic_partitions or []
        found = {Partition(p.topic, p.partition): p.offset for p in answer if p.offset >= 0}
        return {p: found.get(p) for p in partitions}

    def offsets_at(self, time_ms: int, partitions: Collection[Partition]) -> dict[Partition, int]:
        """The first offset that was appended at this time or later; the end where there is none."""
        spec = {TopicPartition(*p): OffsetSpec.for_timestamp(time_ms) for p in partitions}
        ends = self._offsets(partitions, _LATEST)
        with _asking(self._connection):
            found = {
                Partition(p.topic, p.partition): f.result(_WAIT_S).offset
                for p, f in self._admin.list_offsets(spec, request_timeout=_WAIT_S).items()
            }
        return {p: found[p] if found[p] >= 0 else ends[p] for p in partitions}

    def read(
        self, topics: Collection[str], take: Callable[[messages.Message], None]
    ) -> dict[Partition, Range]:
        """Hands over every committed record of the topics; says what was read of each partition.

        The end is the one that the partition has at the call, open transactions included: a commit can return
        before its records are readable, so the end that a read_committed consumer is shown may be too low.
        """
        partitions = self.partitions(topics)
        lows = self._offsets(partitions, _EARLIEST)
        ends = self._offsets(partitions, _LATEST)
        behind = {p for p in partitions if lows[p] < ends[p]}
        if behind:
            self._consume(lows, ends, behind, take)
        return {p: Range(lows[p], ends[p]) for p in partitions}

    def _consume(
        self,
        lows: Mapping[Partition, int],
        ends: Mapping[Partition, int],
        behind: set[Partition],
        take: Callable[[messages.Message], None],
    ) -> None:
        consumer = Consumer(
            {
                **self._connection.kafka,
                "group.id": "tailrace-verify",  # librdkafka demands one; nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
            }
        )
        try:
            consumer.assign([TopicPartition(*p, lows[p]) for p in behind])
            moved = time.monotonic()
            while behind:
                batch: list[Any] = consumer.consume(_BATCH, 0.1)
                if batch:
                    moved = time.monotonic()
                elif time.monotonic() - moved > _STALL_S:
                    shown = ", ".join(f"{p.topic}/{p.partition}" for p in sorted(behind)[:5])
                    raise TailraceError(
                        f"no end of {shown} for {_STALL_S:.0f} s: is a transaction left open?"
                    )
                for message in batch:
                    self._take(consumer, message, ends, behind, take)
        finally:
            consumer.close()

    def _take(
        self,
        consumer: Any,
        message: Any,
        ends: Mapping[Partition, int],
        behind: set[Partition],
        take: Callable[[messages.Message], None],
    ) -> None:
        partition = Partition(message.topic(), message.partition())
        error = message.error()
        if error is None:
            if partition in behind and message.offset() < ends[partition]:
                take(message)
            position = message.offset() + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            position = message.offset()
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise TailraceError(
                f"retention deleted records while they were read ({error.str()}): run it again"
            )
        else:
            return  # what librdkafka retries by itself
        if partition in behind and position >= ends[partition]:
            behind.discard(partition)
            consumer.pause([TopicPartition(*partition)])

    def _offsets(self, partitions: Collection[Partition], spec: Any) -> dict[Partition, int]:
        asked = {TopicPartition(*p): spec for p in partitions}
        if not asked:
            return {}
        with _asking(self._connection):
            futures = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_WAIT_S
            )
            return {Partition(p.topic, p.partition): f.result(_WAIT_S).offset for p, f in futures.items()}


class _asking:  # noqa: N801 - reads as a statement
    """Turns librdkafka's errors into one for people."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, KafkaException):
            reason = error.args[0].str()
            raise TailraceError(f"Kafka at {self._connection.bootstrap} does not answer: {reason}") from error
