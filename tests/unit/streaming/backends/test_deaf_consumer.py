"""A consumer whose questions are never answered: it is told from a Kafka that is away, and ends its process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tailrace.streaming.backends.abstract import Fatal, Retriable
from tailrace.streaming.backends.kafka import consumer as module
from tailrace.streaming.backends.kafka.consumer import KafkaConsumer
from tailrace.streaming.records import TopicPartition

WHERE = [TopicPartition("requests", 0)]


class Clients:
    """Stands for confluent_kafka's consumers: the first is the service's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.deaf = True
        self.away = False
        self.made: list[Client] = []
        monkeypatch.setattr(module.confluent_kafka, "Consumer", self._make)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.consumer = KafkaConsumer({}, "group", co_partitioned=False, max_poll_interval_ms=1_000)

    def _make(self, settings: dict[str, Any], logger: object) -> Client:
        first = not self.made
        self.made.append(Client(lambda: self.away or (first and self.deaf)))
        return self.made[-1]

    def ask(self, times: int, every_s: float = 2.5) -> int:
        """How often the question went unanswered."""
        unanswered = 0
        for _ in range(times):
            self.now += every_s
            try:
                self.consumer.committed(WHERE)
            except Retriable:
                unanswered += 1
        return unanswered


class Client:
    def __init__(self, is_silent: Callable[[], bool]) -> None:
        self._is_silent = is_silent
        self.closed = False

    def committed(self, places: list[Any], timeout: float) -> list[Any]:
        if self._is_silent():
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for place in places:
            place.offset = 7
        return places

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_a_deaf_consumer_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients(monkeypatch)
    assert clients.ask(12) == 12
    with pytest.raises(Fatal, match="though Kafka answers"):
        clients.ask(2)
    assert [client.closed for client in clients.made] == [False, True]


def test_a_kafka_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients(monkeypatch)
    clients.away = True
    assert clients.ask(100) == 100
    assert all(client.closed for client in clients.made[1:])
    clients.deaf = clients.away = False
    assert clients.ask(5) == 0


def test_time_outs_that_do_not_follow_one_another_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients(monkeypatch)
    assert clients.ask(10, every_s=60) == 10
    assert len(clients.made) == 1
    clients.ask(10)
    clients.deaf = False
    assert clients.ask(1) == 0
    clients.deaf = True
    assert clients.ask(10) == 10
    assert len(clients.made) == 1


def test_a_consumer_that_does_not_close_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients(monkeypatch)
    monkeypatch.setattr(module, "_CLOSE_S", 0.02)
    closing, never = threading.Event(), threading.Event()

    def close() -> None:
        closing.set()
        never.wait(10)

    monkeypatch.setattr(clients.made[0], "close", close)
    clients.consumer.close()
    assert closing.wait(10)
    never.set()
