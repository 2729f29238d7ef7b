"""A producer that never says a word does not hang whoever uses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tailrace.client.errors import DeliveryFailed
from tailrace.streaming.backends.kafka.clients import BoundedProducer, is_unknown
from tailrace.streaming.records import Record

SOON_S = 0.1


class Silent:
    """Takes three records, reports on none, and never comes back from ``close``."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.taken: list[Any] = []
        self.reports: list[Callable[..., None]] = []

    def produce(
        self, topic: str, value: Any, key: Any, *, on_delivery: Callable[..., None], **_: Any
    ) -> None:
        if len(self.taken) == 3:
            raise BufferError
        self.taken.append(value)
        self.reports.append(on_delivery)

    def poll(self, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def flush(self, timeout_s: float) -> int:
        time.sleep(timeout_s)
        return len(self.taken)

    def purge(self) -> None: ...

    def close(self) -> None:
        Event().wait()


class Talking(Silent):
    def flush(self, timeout_s: float) -> int:
        for report in self.reports:
            report(None, "a message")
        self.reports = []
        return 0


class Failed(Silent):
    def produce(self, *_: Any, **__: Any) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL, "fenced", True))


def sender(*kinds: type[Silent]) -> tuple[BoundedProducer, list[Silent]]:
    made: list[Silent] = []

    def make(options: dict[str, Any]) -> Silent:
        made.append(kinds[min(len(made), len(kinds) - 1)](options))
        return made[-1]

    return BoundedProducer({"linger.ms": 1}, patience_s=SOON_S, make=make), made


def test_what_a_silent_producer_had_is_reported_as_unknown_and_never_sent_again() -> None:
    own, made = sender(Silent, Talking)
    reports: list[tuple[str, KafkaError | None]] = []
    for name in "abcd":
        own.produce("t", name.encode(), on_delivery=lambda error, _, name=name: reports.append((name, error)))
    assert own.flush(5) == 0
    assert [name for name, error in reports if error is not None and is_unknown(error)] == ["a", "b", "c"]
    assert reports[-1] == ("d", None)
    assert [one.taken for one in made] == [[b"a", b"b", b"c"], [b"d"]]
    # A report that comes after all is about what was given up.
    made[0].reports[0](None, "late")
    assert len(reports) == 4


def test_a_flush_of_a_silent_producer_ends_in_time() -> None:
    own, made = sender(Silent)
    own.produce("t", b"a")
    began = time.monotonic()
    assert own.flush(0.05) == 1
    assert own.flush(5) == 0
    assert time.monotonic() - began < 5
    assert len(made) == 2


def test_a_producer_with_a_fatal_error_is_replaced() -> None:
    own, made = sender(Failed, Talking)
    own.produce("t", b"a")
    assert own.flush(1) == 0
    assert made[1].taken == [b"a"]


class Placing(Silent):
    """Takes what comes, the last first, and refuses what says so."""

    def flush(self, timeout_s: float) -> int:
        for offset, (value, report) in reversed([*enumerate(zip(self.taken, self.reports, strict=True))]):
            refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED) if value == b"refused" else None
            report(refused, SimpleNamespace(offset=lambda offset=offset: offset))
        return 0


def test_delivered_records_have_their_offsets_in_the_order_in_which_they_were_given() -> None:
    own, _ = sender(Placing)
    assert own.deliver([Record("t", b"a"), Record("t", b"b", partition=1)], 1) == [0, 1]
    assert own.deliver([], 1) == []


def test_records_are_not_delivered_where_kafka_refuses_one_or_does_not_say() -> None:
    own, _ = sender(Placing)
    with pytest.raises(KafkaException) as failed:
        own.deliver([Record("t", b"a"), Record("t", b"refused")], 1)
    assert not is_unknown(failed.value.args[0])
    silent, _ = sender(Silent)
    with pytest.raises(KafkaException, match="has not said within") as failed:
        silent.deliver([Record("t", b"a")], 0.01)
    assert is_unknown(failed.value.args[0])


def test_librdkafka_does_not_reach_its_own_limit() -> None:
    _, made = sender(Silent)
    assert made[0].options["delivery.timeout.ms"] > SOON_S * 1_000


def test_the_caller_is_told_what_is_unknown() -> None:
    error = DeliveryFailed("silence", ["r1", "r2"], ["r2"])
    assert (error.ids, error.unknown) == (["r1", "r2"], ["r2"])
    assert "of 1 it is not known" in str(error)
    assert "send them again" in str(DeliveryFailed("too large", ["r1"]))
