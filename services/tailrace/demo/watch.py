"""Watches a lane from outside, as any consumer of its topics would."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import cast

from confluent_kafka import Consumer, TopicPartition

from tailrace.contracts.lanes import Lane
from tailrace.kit.codec import Codec
from tailrace.kit.connection import Connection
from tailrace.kit.marks import mark_time
from tailrace.kit.messages import Message, Source
from tailrace.kit.registry import RegistryClient


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction as seen on its topic. Times are the broker's append times in milliseconds."""

    source: Source
    at: Source
    request_ms: int
    prediction_ms: int
    version: int
    action: str
    request_id: str

    @property
    def wait_ms(self) -> int:
        """From the request's append to the prediction's: what an application waits, less its own network."""
        return self.prediction_ms - self.request_ms


@dataclass
class Seen:
    """What was seen so far. Written by the watcher's thread only."""

    requests: int = 0
    dead_letters: int = 0
    answers: list[Answer] = field(default_factory=list)
    twice: int = 0
    actions: Counter[str] = field(default_factory=Counter)


class Watcher(threading.Thread):
    """Reads requests, predictions and dead letters of a lane, committed records only, from now on."""

    def __init__(self, connection: Connection, lane: Lane) -> None:
        super().__init__(name="watcher", daemon=True)
        self.seen = Seen()
        self.error: BaseException | None = None
        self._lane = lane
        self._codec = Codec(RegistryClient(connection.registry, connection.registry_auth))
        self._stopping = threading.Event()
        self._appended: dict[Source, int] = {}
        self._early: dict[Source, Answer] = {}
        self._answered: set[Source] = set()
        self._consumer = Consumer(
            {
                **connection.kafka,
                "group.id": "unused",  # assigned by hand: librdkafka asks for a name all the same
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 20,
            }
        )
        start = []
        for topic in (lane.requests, lane.predictions, lane.dead_letters):
            for partition in self._consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
                start.append(TopicPartition(topic, partition, end))
        self._consumer.assign(start)

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                for message in self._consumer.consume(2000, 0.05):
                    if message.error() is None and mark_time(cast(Message, message)) is None:
                        self._take(cast(Message, message))
        except BaseException as error:
            self.error = error
        finally:
            self._consumer.close()

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)
        if self.error is not None:
            raise self.error

    def _take(self, message: Message) -> None:
        at = Source.of(message)
        if at.topic == self._lane.requests:
            self.seen.requests += 1
            self._appended[at] = message.timestamp()[1]
            if at in self._early:
                self._count(self._early.pop(at))
        elif at.topic == self._lane.dead_letters:
            self.seen.dead_letters += 1
        else:
            event = self._codec.decode(message.value()).record
            answer = Answer(
                source=Source(*(event["source"][name] for name in ("topic", "partition", "offset"))),
                at=at,
                request_ms=0,
                prediction_ms=message.timestamp()[1],
                version=event["version"],
                action=event["action"],
                request_id=event["request_id"],
            )
            if answer.source in self._answered:
                self.seen.twice += 1
            self._answered.add(answer.source)
            if answer.source in self._appended:
                self._count(answer)
            else:  # the two topics are fetched independently
                self._early[answer.source] = answer

    def _count(self, answer: Answer) -> None:
        appended = self._appended.pop(answer.source)
        self.seen.answers.append(replace(answer, request_ms=appended))
        self.seen.actions[answer.action] += 1
