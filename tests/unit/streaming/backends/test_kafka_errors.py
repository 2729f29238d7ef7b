from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from tailrace.streaming.backends.abstract import (
    Abortable,
    Fatal,
    Fenced,
    LogError,
    OutcomeUnknown,
    RecordRejected,
    Retriable,
)
from tailrace.streaming.backends.kafka.errors import kind
from tailrace.streaming.backends.kafka.producer import KafkaProducer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "", False, False, True), RecordRejected),
        (KafkaError(KafkaError._FENCED, "", True), Fenced),
        (KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "", False, False, True), Fenced),
        # Seen when a process stood still with a transaction in hand, and again while it aborted it: it then goes on.
        (KafkaError(KafkaError.INVALID_TXN_STATE, "", True), OutcomeUnknown),
        (KafkaError(KafkaError.UNKNOWN_PRODUCER_ID, "", True), Fatal),
        (KafkaError(KafkaError._TIMED_OUT, "", False, False, True), Abortable),
        (KafkaError(KafkaError.ILLEGAL_GENERATION), Abortable),
        (KafkaError(KafkaError._TIMED_OUT), Retriable),
        (KafkaError(KafkaError.NOT_ENOUGH_REPLICAS, "", False, True), Retriable),
        (KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED), Fatal),
    ],
)
def test_each_error_is_what_a_caller_can_act_on(error: KafkaError, expected: type[LogError]) -> None:
    assert type(kind(error)) is expected
    assert type(kind(KafkaException(error))) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # "Transaction commit succeeded on the broker but the transaction had already failed locally"
        (KafkaError(KafkaError._TIMED_OUT, "", True), OutcomeUnknown),
        (KafkaError(KafkaError.UNKNOWN), OutcomeUnknown),
        (KafkaError(KafkaError._FENCED, "", True), Fenced),
        (KafkaError(KafkaError._TIMED_OUT, "", False, True), Retriable),
        (KafkaError(KafkaError.ILLEGAL_GENERATION), Abortable),
    ],
)
@pytest.mark.parametrize("call", ["commit", "abort"])
def test_what_a_transaction_ends_with_tells_whether_its_outcome_is_known(
    call: str, error: KafkaError, expected: type[LogError]
) -> None:
    class Ending:
        def commit_transaction(self, _: float) -> None:
            raise KafkaException(error)

        abort_transaction = commit_transaction

        def poll(self, _: float) -> None:
            pass

    producer = KafkaProducer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "ending")
    producer._producer = Ending()
    with pytest.raises(expected):
        getattr(producer, call)()
    producer.close()
