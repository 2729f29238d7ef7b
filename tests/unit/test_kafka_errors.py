from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from tailrace.kit.kafka_errors import kind
from tailrace.kit.log import Abortable, Fatal, Fenced, Indefinite, LogError, Refused, Retriable


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "", False, False, True), Refused),
        (KafkaError(KafkaError._FENCED, "", True), Fenced),
        (KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "", False, False, True), Fenced),
        # Seen when a process stood still with a transaction in hand, and again while it aborted it: it then goes on.
        (KafkaError(KafkaError.INVALID_TXN_STATE, "", True), Indefinite),
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
