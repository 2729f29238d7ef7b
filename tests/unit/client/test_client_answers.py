from __future__ import annotations

import threading

import pytest

from tailrace.client.answers import Waiter
from tailrace.client.errors import DeliveryFailed, Rejected, Timeout
from tailrace.streaming.records import RecordRef

HERE, ELSEWHERE = RecordRef("m.requests", 0, 7), RecordRef("m.requests", 0, 8)


@pytest.mark.parametrize("answer_first", [True, False])
def test_answer_and_delivery_may_come_in_either_order(answer_first: bool) -> None:
    waiter = Waiter()
    steps = [lambda: waiter.answered(HERE, {"score": 0.5}), lambda: waiter.delivered(HERE)]
    for step in steps if answer_first else reversed(steps):
        step()
    assert waiter.wait(0) == {"score": 0.5}


def test_an_answer_to_another_request_under_the_same_key_is_not_taken() -> None:
    waiter = Waiter()
    waiter.delivered(HERE)
    waiter.answered(ELSEWHERE, {"score": 0.1})
    with pytest.raises(Timeout, match=r"m\.requests/0/7"):
        waiter.wait(0.01)
    threading.Timer(0.01, waiter.answered, (HERE, {"score": 0.9})).start()
    assert waiter.wait(5) == {"score": 0.9}


def test_a_dead_letter_raises_with_code_reason_and_field() -> None:
    waiter = Waiter()
    waiter.delivered(HERE)
    waiter.answered(HERE, Rejected("unseen-category", "no such purpose", "purpose"))
    with pytest.raises(Rejected) as refused:
        waiter.wait(0)
    assert (refused.value.code, refused.value.reason, refused.value.field) == (
        "unseen-category",
        "no such purpose",
        "purpose",
    )


def test_a_request_that_kafka_did_not_take_fails_at_once() -> None:
    waiter = Waiter()
    waiter.failed(DeliveryFailed("too large", ["r1"]))
    with pytest.raises(DeliveryFailed, match="too large"):
        waiter.wait(5)
    with pytest.raises(Timeout, match="did not take"):
        Waiter().wait(0)
