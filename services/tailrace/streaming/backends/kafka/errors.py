"""librdkafka's errors as the kinds that a caller can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from tailrace.errors import TailraceError, Unavailable
from tailrace.streaming.backends.abstract import (
    Abortable,
    Fatal,
    Fenced,
    LogError,
    OutcomeUnknown,
    RecordRejected,
    Retriable,
)

_REFUSED = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD}
_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
_NOT_A_MEMBER = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._ASSIGNMENT_LOST,
}
# What passes by itself, though librdkafka does not mark every one of them as retriable.
_PASSING = {
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._WAIT_COORD,
    KafkaError._IN_PROGRESS,
    KafkaError._PREV_IN_PROGRESS,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._NOENT,  # no leaders found, where ends of partitions are asked for
    # A broker that comes back and its clients learn of the new epoch one after the other.
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.CONCURRENT_TRANSACTIONS,
}


def for_people(error: KafkaError, kafka: str = "Kafka") -> Unavailable | TailraceError:
    """The error for whoever has asked Kafka for something: it does not answer, or it refuses."""
    if error.retriable() or error.code() < 0:
        return Unavailable(f"{kafka} does not answer: {error.str()}")
    return TailraceError(f"{kafka} refuses: {error.str()} ({error.name()})")


@contextmanager
def asking(kafka: str = "Kafka") -> Iterator[None]:
    """Raises `for_people` for librdkafka's errors within the block."""
    try:
        yield
    except KafkaException as error:
        raise for_people(error.args[0], kafka) from error


@contextmanager
def log_errors() -> Iterator[None]:
    """Raises librdkafka's errors within the block as their `kind`."""
    try:
        yield
    except KafkaException as error:
        raise kind(error) from error


def kind(raised: KafkaError | KafkaException) -> LogError:
    """What ``raised`` means to a caller; what is not known to pass or to be abortable is fatal."""
    error: KafkaError = raised.args[0] if isinstance(raised, KafkaException) else raised
    text = error.str()
    if error.code() in _REFUSED:
        return RecordRejected(text)
    if error.code() in _FENCED:
        return Fenced(
            f"{text}. Another process uses the same transactional id, or this one stood still for longer than its "
            f"transaction may take; give each instance its own TAILRACE_INSTANCE"
        )
    if error.code() == KafkaError.INVALID_TXN_STATE:
        # The broker has ended the transaction already, as it does with one that was open for too long, or knows of none
        # because the request that opens it was lost. The library gives its producer up; a new one may go on.
        return OutcomeUnknown(text)
    if error.fatal():
        return Fatal(text)
    if error.txn_requires_abort() or error.code() in _NOT_A_MEMBER:
        return Abortable(text)
    if error.retriable() or error.code() in _PASSING:
        return Retriable(text)
    return Fatal(text)
