"""A member of a consumer group on Kafka. What each setting is for, docs/adr/0014 says."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from tailrace.streaming.backends.abstract import (
    Committed,
    Fatal,
    Membership,
    OutOfRange,
    RebalanceListener,
    Retriable,
)
from tailrace.streaming.backends.kafka.bounded_calls import BoundedCalls, NeverReturned
from tailrace.streaming.backends.kafka.errors import kind, log_errors
from tailrace.streaming.backends.kafka.places import CALL_S, places_of
from tailrace.streaming.records import Message, TopicPartition

log = logging.getLogger(__name__)

SESSION_TIMEOUT_MS = 6_000

_STUCK_S = 30.0
"""After so long without an answer to one client another one asks. Where Kafka answers that, the first is deaf."""

_NEVER = (float("-inf"), float("-inf"))
"""When a question went unanswered: the first of those in a row, and the last."""

_CLOSE_S = 10.0
_NO_OFFSET = -1001
_PASSING_EVENTS = frozenset(
    {KafkaError._PARTITION_EOF, KafkaError._MAX_POLL_EXCEEDED, KafkaError.UNKNOWN_TOPIC_OR_PART}
)


class KafkaConsumer:
    def __init__(
        self, common: Mapping[str, Any], group: str, *, co_partitioned: bool, max_poll_interval_ms: int
    ) -> None:
        self._cooperative = not co_partitioned
        self._unanswered = _NEVER
        self._settings: dict[str, Any] = {
            **common,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "range" if co_partitioned else "cooperative-sticky",
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "heartbeat.interval.ms": 1_000,
            "max.poll.interval.ms": max_poll_interval_ms,
            "topic.metadata.refresh.interval.ms": 30_000,
            # A partition that is taken up again is asked for when the request is back that is out for the others.
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 5,
            "fetch.error.backoff.ms": 50,
        }
        self._consumer: Any = confluent_kafka.Consumer(self._settings, logger=log)

    def subscribe(self, topics: Collection[str], listener: RebalanceListener) -> None:
        def assign(_: object, places: list[Place]) -> None:
            starts = listener.on_assign(_partitions(places))
            assigned = [Place(*tp, offset) for tp, offset in starts.items()]
            if self._cooperative:
                self._consumer.incremental_assign(assigned)
            else:
                self._consumer.assign(assigned)

        with log_errors():
            if topics:
                self._consumer.subscribe(
                    sorted(topics),
                    on_assign=assign,
                    # Once these return, the library itself lets the partitions go.
                    on_revoke=lambda _, places: listener.on_revoke(_partitions(places)),
                    on_lost=lambda _, places: listener.on_lost(_partitions(places)),
                )
            else:
                self._consumer.unsubscribe()

    def consume(self, limit: int, timeout_s: float) -> Sequence[Message]:
        with log_errors():
            messages: list[Any] = self._consumer.consume(limit, timeout_s)
        for message in messages:
            if message.error() is not None:
                return [m for m in messages if not _is_event(m)]
        return messages

    def member_id(self) -> str:
        return self._consumer.memberid() or ""

    def membership(self) -> Membership:
        before = self.member_id()
        token = self._consumer.consumer_group_metadata()
        # The token does not say whose it is: it is this member's if this was the member before and after.
        return Membership(before if self.member_id() == before else "", token)

    def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        if not partitions:
            return {}
        asked = [Place(*tp) for tp in partitions]
        try:
            places = self._consumer.committed(asked, timeout=CALL_S)
        except KafkaException as error:
            self._end_where_deaf(asked)
            raise kind(error) from error
        self._unanswered = _NEVER
        _check(places)
        return {
            tp: None if place.offset == _NO_OFFSET else Committed(place.offset, place.metadata or "")
            for tp, place in zip(_partitions(places), places, strict=True)
        }

    def _end_where_deaf(self, asked: list[Place]) -> None:
        """A consumer has been seen whose questions all timed out, for minutes after its broker had died several times,
        while Kafka answered everybody else at once (docs/adr/0203).

        Raises:
            Fatal: this is such a one.
        """
        now = time.monotonic()
        since, last = self._unanswered
        self._unanswered = (since if now - last < 3 * CALL_S else now), now
        if now - self._unanswered[0] < _STUCK_S:
            return
        self._unanswered = _NEVER
        with confluent_kafka.Consumer(self._settings, logger=log) as other:
            try:
                other.committed(asked, timeout=CALL_S)
            except KafkaException:
                return  # Kafka is away
        raise Fatal(f"the client library has had no answer for {_STUCK_S:.0f} s, though Kafka answers")

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        with log_errors():
            _check(self._consumer.commit(offsets=places_of(offsets), asynchronous=False))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        try:
            self._consumer.seek(Place(*partition, offset))
        except KafkaException as error:
            # The fetcher is not up yet, or the partition is about to go.
            raise Retriable(error.args[0].str()) from error

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.pause([Place(*tp) for tp in partitions])

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.resume([Place(*tp) for tp in partitions])

    def earliest(self, partition: TopicPartition) -> int:
        with log_errors():
            first: int = self._consumer.get_watermark_offsets(Place(*partition), timeout=CALL_S)[0]
        return first

    def end(self, partition: TopicPartition) -> int | None:
        last: int = self._consumer.get_watermark_offsets(Place(*partition), cached=True)[1]
        return last if last >= 0 else None

    def close(self) -> None:
        calls = BoundedCalls("closing a consumer")
        calls.begin(lambda: self._consumer.close())
        try:
            calls.end(_CLOSE_S)
        except NeverReturned:
            log.warning("a consumer does not close; the group will miss it after its session")
        calls.close()


def _is_event(message: Any) -> bool:
    """Whether librdkafka says something with this message, instead of handing one over."""
    error = message.error()
    if error is None:
        return False
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        raise OutOfRange(TopicPartition(message.topic(), message.partition()), message.offset())
    if error.code() not in _PASSING_EVENTS:
        log_error = kind(error)
        raise log_error if isinstance(log_error, Fatal) and error.fatal() else Retriable(str(log_error))
    log.warning("consuming", extra={"topic": message.topic(), "error": error.str()})
    return True


def _check(places: Iterable[Place]) -> None:
    for place in places:
        if place.error is not None:
            raise kind(place.error)


def _partitions(places: Iterable[Place]) -> list[TopicPartition]:
    return [TopicPartition(place.topic, place.partition) for place in places]
