"""A transactional producer on Kafka. What each setting is for, docs/adr/0014 says."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from tailrace.streaming.backends.abstract import (
    TRANSACTION_TIMEOUT_MS,
    Abortable,
    Committed,
    Fatal,
    Fenced,
    LogError,
    Membership,
    OutcomeUnknown,
    RecordRejected,
    Retriable,
)
from tailrace.streaming.backends.kafka import bulk_produce
from tailrace.streaming.backends.kafka.bounded_calls import BoundedCalls, NeverReturned
from tailrace.streaming.backends.kafka.errors import kind
from tailrace.streaming.backends.kafka.places import CALL_S, places_of
from tailrace.streaming.records import Record, Records, Runs, TopicPartition

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 20 * 1024 * 1024
"""More than any topic takes: the topic decides, not the client."""

_RETURN_S = 2 * CALL_S
"""How long a call may take that was told to wait for no more than ``CALL_S``."""

_LOG_INFO = 6
_LOSSES = frozenset({"FAIL", "REQTMOUT"})


class _LibraryLog:
    """What the client library has to say goes to the log. That a connection was lost, it says nowhere else.

    Attributes:
        loss: a connection was lost, or a request given up that was under way.
    """

    def __init__(self) -> None:
        self.loss = False

    def log(self, level: int, text: str, event: str, *more: str) -> None:
        self.loss |= event in _LOSSES
        log.log(level, text, event, *more)


class KafkaProducer:
    def __init__(self, common: Mapping[str, Any], transactional_id: str) -> None:
        self._refused: KafkaError | None = None
        self._calls = BoundedCalls(f"transactions of {transactional_id}")
        self._committing = False
        self._library_log = _LibraryLog()
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
        return confluent_kafka.Producer(self._settings, logger=self._library_log)

    def _undelivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None and isinstance(kind(error), RecordRejected):
            self._refused = error

    @property
    def _client(self) -> Any:
        if self._producer is None:
            raise Fatal("the producer is closed")
        return self._producer

    def init(self) -> None:
        self._call(self._client.init_transactions, CALL_S)
        self._client.poll(0)
        self._library_log.loss = False
        self._initiated = True

    def begin(self) -> None:
        self._client.poll(0)
        if self._library_log.loss and self._initiated:
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
        self._calls.begin(self._send_offsets, places_of(offsets), membership.token)
        self._wait(_RETURN_S)

    def begin_commit(self, offsets: Mapping[TopicPartition, Committed], membership: Membership) -> None:
        def send_and_commit() -> None:
            try:
                self._send_offsets(places_of(offsets), membership.token)
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
        self._call(self._client.send_offsets_to_transaction, places, token, CALL_S)

    def _commit(self) -> None:
        self._end(self._client.commit_transaction)
        self._one_by_one = False

    def _wait(self, timeout_s: float) -> None:
        try:
            self._calls.end(timeout_s)
        except NeverReturned:
            raise OutcomeUnknown(f"the client library has not come back for {timeout_s:.0f} s") from None

    def abort(self) -> None:
        # Which record was refused, and why, only a delivery report says.
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
            call(CALL_S)
        except KafkaException as error:
            log_error = self._kind(error)
            # What the library gives a producer up for may have been committed: it can give up before the broker does.
            is_unknown = isinstance(log_error, Fatal) and not isinstance(log_error, Fenced)
            raise (OutcomeUnknown(str(log_error)) if is_unknown else log_error) from error

    def _kind(self, error: KafkaException) -> LogError:
        """A transaction fails for what happened to its records, which only their delivery reports say."""
        log_error = kind(error)
        if isinstance(log_error, Abortable):
            self._client.poll(0)
            if self._refused is not None:
                return RecordRejected(self._refused.str())
        return log_error


def _not_taken(error: KafkaException) -> LogError:
    log_error = kind(error)
    return log_error if isinstance(log_error, RecordRejected | Fatal) else Abortable(str(log_error))
