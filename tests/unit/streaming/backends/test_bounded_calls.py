from __future__ import annotations

import threading
from typing import Any

import pytest

from tailrace.streaming.backends.abstract import Membership, OutcomeUnknown
from tailrace.streaming.backends.kafka import producer as kafka_producer
from tailrace.streaming.backends.kafka.bounded_calls import BoundedCalls, NeverReturned
from tailrace.streaming.backends.kafka.producer import KafkaProducer


def test_a_call_is_made_with_its_arguments_and_raises_what_it_raises() -> None:
    calls = BoundedCalls("test")
    made: list[tuple[int, int]] = []
    calls.begin(lambda *arguments: made.append(arguments), 1, 2)
    calls.end(5)
    assert made == [(1, 2)]
    calls.begin(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        calls.end(5)
    calls.begin(made.clear)
    calls.end(5)
    assert made == []


def test_a_call_that_does_not_return_is_left_alone() -> None:
    returning, returned = threading.Event(), threading.Event()

    def last() -> None:
        returning.wait(10)
        returned.set()

    calls = BoundedCalls("test")
    calls.begin(last)
    with pytest.raises(NeverReturned):
        calls.end(0.02)
    assert not returned.is_set()
    returning.set()
    assert returned.wait(10)
    calls.close()


def test_offsets_whose_sending_does_not_return_are_of_unknown_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_producer, "_RETURN_S", 0.02)
    returning = threading.Event()

    class Stuck:
        def send_offsets_to_transaction(self, *_: Any) -> None:
            returning.wait(10)

    producer = KafkaProducer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "stuck")
    producer._producer = Stuck()
    with pytest.raises(OutcomeUnknown, match="has not come back"):
        producer.send_offsets({}, Membership("member", None))
    returning.set()
    producer.close()
