"""The log on Apache Kafka, through librdkafka. What each setting is for, docs/adr/0014 says."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient

from tailrace.connection import Connection
from tailrace.streaming.backends.abstract import (
    TRANSACTION_TIMEOUT_MS,
    Abortable,
    Committed,
    Fatal,
    Fenced,
    History,
    LogError,
    Membership,
    OutcomeUnknown,
    OutOfRange,
    RebalanceListener,
    RecordRejected,
    Retriable,
)
from tailrace.streaming.backends.kafka import bulk_produce
from tailrace.streaming.backends.kafka.bounded_calls import BoundedCalls, NeverReturned
from tailrace.streaming.backends.kafka.errors import kind
from tailrace.streaming.backends.kafka.reading import HistoryReader, TopicReader
from tailrace.streaming.records import Message, Record, Records, Runs, TopicPartition

log = logging.getLogger(__name__)

SESSION_TIMEOUT_MS = 6_000
BATCH_S = 30.0
MAX_MESSAGE_BYTES = 20 * 1024 * 1024
"""More than any topic takes: the topic decides, not the client."""

_CALL_S = 2.0
"""How long one call waits before it comes back as retriable, and whoever made it can look at the time."""

_RETURN_S = 2 * _CALL_S
"""How long a call may take that was told to wait for no more than ``_CALL_S``."""

_STUCK_S = 30.0
"""After so long without an answer to one client another one asks. Where Kafka answers that, the first is deaf."""

_NEVER = (float("-inf"), float("-inf"))
"""When a question went unanswered: the first of those in a row, and the last."""

_CLOSE_S = 10.0
_NO_OFFSET = -1001
_LOG_INFO = 6
_LOSSES = frozenset({"FAIL", "REQTMOUT"})
_PASSING_EVENTS = frozenset(
    {KafkaError._PARTITION_EOF, KafkaError._MAX_POLL_EXCEEDED, KafkaError.UNKNOWN_TOPIC_OR_PART}
)


class KafkaBackend:
    """One client's way to Kafka. Its consumers lose their partitions when a batch takes longer than ``batch_s``."""

    def __init__(self, connection: Connection, client_id: str, *, batch_s: float = BATCH_S) -> None:
        self._connection = connection
        self._batch_s = batch_s
        self._common: dict[str, Any] = {
            **connection.kafka,
            "client.id": client_id,
            "reconnect.backoff.max.ms": 1_000,
        }
        self._open = ExitStack()
        self._admin: AdminClient | None = None

    def close(self) -> None:
        """Ends what it keeps for itself; consumers, producers and readers are closed by who has asked for them."""
        self._open.close()
        self._admin = None

    def topics(self) -> Mapping[str, int]:
        try:
            if self._admin is None:
                self._admin = self._open.enter_context(AdminClient(self._common, logger=log))
            found = self._admin.list_topics(timeout=_CALL_S).topics
        except KafkaException as error:
            raise kind(error) from error
        return {name: len(topic.partitions) for name, topic in found.items() if topic.error is None}

    def consumer(self, group: str, *, co_partitioned: bool = False) -> KafkaConsumer:
        return KafkaConsumer(
            self._common,
            group,
            co_partitioned=co_partitioned,
            max_poll_interval_ms=round(1_000 * self._batch_s),
        )

    def producer(self, transactional_id: str) -> KafkaProducer:
        return KafkaProducer(self._common, transactional_id)

    def reader(self, topics: Sequence[str]) -> TopicReader:
        return TopicReader(self._connection, topics)

    def history(self, stretches: History) -> HistoryReader:
        return HistoryReader(self._connection, stretches)


class KafkaConsumer:
    def __init__(
        self, common: Mapping[str, Any], group: str, *, co_partitioned: bool, max_poll_interval_ms: int
    ) -> None:
        self._cooperative = not co_partitioned
        self._listener: RebalanceListener | None = None
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
        self._listener = listener
        try:
            if topics:
                self._consumer.subscribe(
                    sorted(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
                )
            else:
                self._consumer.unsubscribe()
        except KafkaException as error:
            raise kind(error) from error

    def _assigned(self, _: object, places: list[Place]) -> None:
        assert self._listener is not None
        starts = self._listener.on_assign(_partitions(places))
        assigned = [Place(*tp, offset) for tp, offset in starts.items()]
        if self._cooperative:
            self._consumer.incremental_assign(assigned)
        else:
            self._consumer.assign(assigned)

    # Once these return, the library itself lets the partitions go.

    def _revoked(self, _: object, places: list[Place]) -> None:
        assert self._listener is not None
        self._listener.on_revoke(_partitions(places))

    def _lost(self, _: object, places: list[Place]) -> None:
        assert self._listener is not None
        self._listener.on_lost(_partitions(places))

    def consume(self, limit: int, timeout_s: float) -> Sequence[Message]:
        try:
            found: list[Any] = self._consumer.consume(limit, timeout_s)
        except KafkaException as error:
            raise kind(error) from error
        for message in found:
            if message.error() is not None:
                return [m for m in found if not _is_event(m)]
        return found

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
            places = self._consumer.committed(asked, timeout=_CALL_S)
        except KafkaException as error:
            self._end_where_deaf(asked)
            raise kind(error) from error
        self._unanswered = _NEVER
        found: dict[TopicPartition, Committed | None] = {}
        for place in places:
            if place.error is not None:
                raise kind(place.error)
            tp = TopicPartition(place.topic, place.partition)
            found[tp] = None if place.offset == _NO_OFFSET else Committed(place.offset, place.metadata or "")
        return found

    def _end_where_deaf(self, asked: list[Place]) -> None:
        """A consumer has been seen whose questions all timed out, for minutes after its broker had died several times,
        while Kafka answered everybody else at once (docs/adr/0203).

        Raises:
            Fatal: this is such a one.
        """
        now = time.monotonic()
        since, last = self._unanswered
        self._unanswered = (since if now - last < 3 * _CALL_S else now), now
        if now - self._unanswered[0] < _STUCK_S:
            return
        self._unanswered = _NEVER
        with confluent_kafka.Consumer(self._settings, logger=log) as other:
            try:
                other.committed(asked, timeout=_CALL_S)
            except KafkaException:
                return  # Kafka is away
        raise Fatal(f"the client library has had no answer for {_STUCK_S:.0f} s, though Kafka answers")

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        try:
            places = self._consumer.commit(offsets=_places(offsets), asynchronous=False)
        except KafkaException as error:
            raise kind(error) from error
        for place in places:
            if place.error is not None:
                raise kind(place.error)

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
        try:
            first: int = self._consumer.get_watermark_offsets(Place(*partition), timeout=_CALL_S)[0]
        except KafkaException as error:
            raise kind(error) from error
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


class _Heard:
    """What the client library has to say goes to the log. That a connection was lost, it says nowhere else.

    Attributes:
        loss: a connection was lost, or a request given up that was under way.
    """

    def __init__(self) -> None:
        self.loss = False

    def log(self, level: int, text: str, what: str, *more: str) -> None:
        self.loss |= what in _LOSSES
        log.log(level, text, what, *more)


class KafkaProducer:
    def __init__(self, common: Mapping[str, Any], transactional_id: str) -> None:
        self._refused: KafkaError | None = None
        self._calls = BoundedCalls(f"transactions of {transactional_id}")
        self._committing = False
        self._heard = _Heard()
        self._initiated = False
        self._one_by_one = False
        self._settings: dict[str, Any] = {
            **common,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 1,
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 20,
            "delivery.report.only.error": True,
            "on_delivery": self._undelivered,
            "log_level": _LOG_INFO,
            "log.connection.close": True,
        }
        self._producer: Any = self._new()

    def _new(self) -> Any:
        return confluent_kafka.Producer(self._settings, logger=self._heard)

    def _undelivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None and isinstance(kind(error), RecordRejected):
            self._refused = error

    @property
    def _client(self) -> Any:
        if self._producer is None:
            raise Fatal("the producer is closed")
        return self._producer

    def init(self) -> None:
        self._call(self._client.init_transactions, _CALL_S)
        self._client.poll(0)
        self._heard.loss = False
        self._initiated = True

    def begin(self) -> None:
        self._client.poll(0)
        if self._heard.loss and self._initiated:
            # Of what was under way then, and was sent again, the first may still arrive, and end this transaction or
            # set its offsets back. Not under a new epoch: docs/adr/0160.
            self._producer = self._new()
            self._initiated = False
        if not self._initiated:
            self.init()
        self._refused = None
        self._call(self._client.begin_transaction)

    def produce(self, records: Sequence[Record]) -> None:
        if isinstance(records, Runs):
            for run in records.runs:
                self.produce(run)
            return
        if isinstance(records, Records):
            self._produce_columns(records)
            return
        for topic, value, key, headers, partition in records:
            if headers or partition is not None:
                number = -1 if partition is None else partition
                self._produce(topic, value, key, number, headers=list(headers))
            else:
                self._produce(topic, value, key)

    def _produce_columns(self, records: Records) -> None:
        if not self._one_by_one and bulk_produce.fits(self._client, records):
            try:
                bulk_produce.produce(self._client, records)
            except KafkaException as error:
                raise _not_taken(error) from error
            return
        produce, topic = self._client.produce, records.topic
        for value, key in zip(records.values, records.keys, strict=True):
            try:
                produce(topic, value, key)
            except (BufferError, KafkaException):
                self._produce(topic, value, key)

    def _produce(self, *record: Any, **named: Any) -> None:
        """Waits for room where the client's queue is full."""
        while True:
            try:
                self._client.produce(*record, **named)
                return
            except BufferError:
                self._client.poll(0.05)
            except KafkaException as error:
                raise _not_taken(error) from error

    def send_offsets(self, offsets: Mapping[TopicPartition, Committed], membership: Membership) -> None:
        # This one can lose its answer while the broker is away, and then heeds no timeout (librdkafka issue 5456).
        self._calls.begin(self._send_offsets, _places(offsets), membership.token)
        self._wait(_RETURN_S)

    def begin_commit(self, offsets: Mapping[TopicPartition, Committed], membership: Membership) -> None:
        def send_and_commit() -> None:
            try:
                self._send_offsets(_places(offsets), membership.token)
            except Retriable as error:
                raise Abortable(str(error)) from error
            self._commit()

        self._calls.begin(send_and_commit)
        self._committing = True

    def commit(self) -> None:
        if not self._committing:
            self._commit()
            return
        self._committing = False
        self._wait(2 * _RETURN_S)

    def _send_offsets(self, places: Sequence[Place], token: object) -> None:
        self._call(self._client.send_offsets_to_transaction, places, token, _CALL_S)

    def _commit(self) -> None:
        self._end(self._client.commit_transaction)
        self._one_by_one = False

    def _wait(self, timeout_s: float) -> None:
        try:
            self._calls.end(timeout_s)
        except NeverReturned:
            raise OutcomeUnknown(f"the client library has not come back for {timeout_s:.0f} s") from None

    def abort(self) -> None:
        # Which record was refused, and why, only a delivery report tells.
        self._one_by_one = True
        self._end(self._client.abort_transaction)

    def close(self) -> None:
        # Not the client's own close(): that aborts, and waits for it, when it is for a new producer to find out.
        self._producer = None
        self._calls.close()

    def _call(self, call: Any, *arguments: object) -> None:
        try:
            call(*arguments)
        except KafkaException as error:
            raise self._kind(error) from error

    def _end(self, call: Any) -> None:
        try:
            call(_CALL_S)
        except KafkaException as error:
            found = self._kind(error)
            # What the library gives a producer up for may have been committed: it can give up before the broker does.
            unclear = isinstance(found, Fatal) and not isinstance(found, Fenced)
            raise (OutcomeUnknown(str(found)) if unclear else found) from error

    def _kind(self, error: KafkaException) -> LogError:
        """A transaction fails for what happened to its records, which only their delivery reports tell."""
        found = kind(error)
        if isinstance(found, Abortable):
            self._client.poll(0)
            if self._refused is not None:
                return RecordRejected(self._refused.str())
        return found


def _not_taken(error: KafkaException) -> LogError:
    found = kind(error)
    return found if isinstance(found, RecordRejected | Fatal) else Abortable(str(found))


def _is_event(message: Any) -> bool:
    """Whether librdkafka says something with this message, instead of handing one over."""
    error = message.error()
    if error is None:
        return False
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        raise OutOfRange(TopicPartition(message.topic(), message.partition()), message.offset())
    if error.code() not in _PASSING_EVENTS:
        found = kind(error)
        raise found if isinstance(found, Fatal) and error.fatal() else Retriable(str(found))
    log.warning("consuming", extra={"topic": message.topic(), "error": error.str()})
    return True


def _partitions(places: Iterable[Place]) -> list[TopicPartition]:
    return [TopicPartition(place.topic, place.partition) for place in places]


def _places(offsets: Mapping[TopicPartition, Committed]) -> list[Place]:
    return [Place(*tp, offset, metadata) for tp, (offset, metadata) in offsets.items()]
