"""Reading topics outside any consumer group: to their real end, onwards from there, or at given places.

The real end of a topic is not "high watermark less one": transaction markers take offsets, the end that a
read_committed consumer sees lies before open transactions, and a commit can return before its marker can be read. So
the end is asked for as read_uncommitted, and reading goes on until the consumer itself has come to an end of partition
there or later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, OffsetSpec

from tailrace.connection import Connection
from tailrace.errors import TailraceError, Unavailable
from tailrace.streaming.backends.abstract import Fatal, History, LogError, OutOfRange, Retriable, read_to_end
from tailrace.streaming.backends.kafka.clients import reader_options
from tailrace.streaming.backends.kafka.errors import kind, log_errors
from tailrace.streaming.records import Message, TopicPartition

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
PartitionOffset = tuple[int, int]
Offsets = Mapping[TopicPartition, int]

_TIMEOUT_S = 10.0
_AT_ONCE = 10_000
_OPTIONS = {"auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 10, "reconnect.backoff.max.ms": 1_000}


class _Reading:
    """Reads what is committed in partitions, each in order, from ``starts`` on.

    Args:
        ends: how far there is to read; a partition that is not named, or ends where it starts, has been read.
        follow: whether to go on from there.
    """

    def __init__(self, connection: Connection, starts: Offsets, ends: Offsets, *, follow: bool) -> None:
        self._follow = follow
        self._ends = {tp: end for tp, end in ends.items() if end > (0 if follow else starts[tp])}
        with log_errors():
            options = reader_options(connection.kafka, "tailrace-reader") | _OPTIONS
            self._consumer: Any = Consumer(options, logger=log)
        places = [Place(*tp, start) for tp, start in starts.items() if follow or tp in self._ends]
        self._consumer.assign(places)

    def poll(self, timeout_s: float) -> list[Message]:
        """What has come, at most 10,000 messages; waits up to ``timeout_s`` for the first of them."""
        messages = self._take(_AT_ONCE, 0)
        if not messages and timeout_s:
            messages = self._take(1, timeout_s)
            messages += self._take(_AT_ONCE, 0) if messages else []
        return messages

    def _take(self, limit: int, timeout_s: float) -> list[Message]:
        messages: list[Message] = []
        for message in self._consumer.consume(limit, timeout_s):
            error = message.error()
            if error is None:
                if self._follow or self._is_wanted(message):
                    messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._reached(TopicPartition(message.topic(), message.partition()), message.offset())
            elif isinstance(kind(error), Fatal):
                raise TailraceError(f"cannot read {message.topic()}: {error.str()}")
            else:
                log.warning("reading", extra={"topic": message.topic(), "error": error.str()})
        return messages

    def _is_wanted(self, message: Message) -> bool:
        """Whether it lies before the end; the first that does not shows that the end is reached."""
        tp = TopicPartition(message.topic(), message.partition())
        end = self._ends.get(tp, 0)
        if message.offset() >= end - 1:
            self._reached(tp, message.offset() + 1)
        return message.offset() < end

    def _reached(self, tp: TopicPartition, offset: int) -> None:
        if offset >= self._ends.get(tp, offset + 1):
            del self._ends[tp]
            if not self._follow:
                self._consumer.pause([Place(*tp)])

    def caught_up(self) -> bool:
        """Whether all has been handed over that was there at the start, open transactions included."""
        return not self._ends

    def close(self) -> None:
        self._consumer.close()


class TopicReader(_Reading):
    """Reads what is committed in whole topics, each partition in order, and follows them.

    Args:
        topics: they exist.
        starts: where to begin in a partition; others begin at their first record, or at their end with ``from_end``.

    Raises:
        TailraceError: a topic does not exist.
        Retriable: Kafka has not answered for ten seconds; the same call may be made again.
    """

    def __init__(
        self,
        connection: Connection,
        topics: str | Sequence[str],
        *,
        starts: Offsets | None = None,
        from_end: bool = False,
    ) -> None:
        topics = [topics] if isinstance(topics, str) else topics
        with _asking(connection) as admin:
            partitions = _partitions(admin, topics)
            ends = _ends(admin, partitions)
        # Neither OFFSET_BEGINNING nor OFFSET_END: where they are is asked for later, when the end has moved on, and
        # that costs half a second while a leader is not yet known. Where the first records are gone, offset 0 is
        # reset to the earliest there is.
        first = dict(ends) if from_end else dict.fromkeys(partitions, 0)
        first.update(starts or {})
        super().__init__(connection, {tp: first[tp] for tp in partitions}, ends, follow=True)


class HistoryReader(_Reading):
    """Reads what is committed in stretches of partitions, and nothing beyond.

    What retention has deleted of a stretch is passed over.

    Raises:
        OutOfRange: a stretch ends where the partition has not come to.
        Retriable: Kafka has not answered for ten seconds; the same call may be made again.
    """

    def __init__(self, connection: Connection, stretches: History) -> None:
        with _asking(connection) as admin:
            real_ends = _ends(admin, list(stretches))
        ends = {tp: real_ends[tp] if end is None else end for tp, (_, end) in stretches.items()}
        for tp, end in ends.items():
            if end > real_ends[tp]:
                raise OutOfRange(tp, end)
        super().__init__(connection, {tp: start for tp, (start, _) in stretches.items()}, ends, follow=False)


class Ends:
    """Asks where topics end, open transactions included, over one connection that it keeps until it is closed."""

    def __init__(self, connection: Connection) -> None:
        self._open = ExitStack()
        self._admin = self._open.enter_context(AdminClient(dict(connection.kafka), logger=log))

    def close(self) -> None:
        self._open.close()

    def of(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """By partition.

        Raises:
            TailraceError: a topic does not exist.
            Retriable: Kafka has not answered for ten seconds.
        """
        with log_errors():
            return _ends(self._admin, _partitions(self._admin, topics))


def earliest_ms(connection: Connection, topics: Sequence[str]) -> int | None:
    """The append time of the earliest record that the topics keep; None where they keep none.

    Raises:
        TailraceError: a topic does not exist, or Kafka cannot be reached.
    """

    def ask() -> int | None:
        with _asking(connection) as admin:
            places = ask_offsets(admin, _partitions(admin, topics), OffsetSpec.for_timestamp(0))
        return min((place.timestamp for place in places.values() if place.offset >= 0), default=None)

    return _patiently(connection, ask)


def read_all(connection: Connection, topics: str | Sequence[str]) -> Iterator[Message]:
    """All that is in the topics at the time of the call, each partition in order, committed records only.

    Where a transaction is open it waits for its end, which a broker enforces.

    Raises:
        TailraceError: a topic does not exist, or Kafka cannot be reached.
    """
    with closing(_patiently(connection, lambda: TopicReader(connection, topics))) as reader:
        yield from read_to_end(reader)


def everything_on(connection: Connection, topics: Sequence[str]) -> list[Message]:
    """All that is in the topics, as `read_all`, for services. Raises `Unavailable` where Kafka is away."""
    try:
        return list(read_all(connection, topics))
    except (TailraceError, LogError) as error:
        raise Unavailable(f"{', '.join(topics)} cannot be read: {error}") from error


def read_at(
    connection: Connection, topic: str, places: Iterable[PartitionOffset]
) -> dict[PartitionOffset, Message]:
    """The messages at ``places`` of a topic; without those that are no longer, or not yet, there.

    Where a transaction is open before one of them it waits for its end.

    Raises:
        TailraceError: as ``read_all``; also where nothing comes for ten seconds.
    """
    wanted = set(places)
    starts: dict[TopicPartition, int] = {}
    ends: dict[TopicPartition, int] = {}
    for partition, offset in wanted:
        tp = TopicPartition(topic, partition)
        starts[tp] = min(offset, starts.get(tp, offset))
        ends[tp] = max(offset + 1, ends.get(tp, 0))
    if not wanted:
        return {}
    with closing(Ends(connection)) as asked:
        real_ends = _patiently(connection, lambda: asked.of([topic]))
    ends = {tp: min(end, real_ends.get(tp, 0)) for tp, end in ends.items()}
    messages_at: dict[PartitionOffset, Message] = {}
    give_up = time.monotonic() + _TIMEOUT_S
    with closing(_patiently(connection, lambda: _Reading(connection, starts, ends, follow=False))) as reader:
        while not reader.caught_up():
            messages = reader.poll(0.2)
            if messages:
                give_up = time.monotonic() + _TIMEOUT_S
            elif time.monotonic() > give_up:
                raise TailraceError(f"{topic} cannot be read: nothing has come for {_TIMEOUT_S:.0f} s")
            messages_at |= {at: m for m in messages if (at := (m.partition(), m.offset())) in wanted}
    return messages_at


def _patiently(connection: Connection, call: Callable[[], Answer]) -> Answer:
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return call()
        except LogError as error:
            if not isinstance(error, Retriable) or time.monotonic() > deadline:
                raise TailraceError(f"Kafka at {connection.bootstrap} does not answer: {error}") from error
            time.sleep(0.1)


@contextmanager
def _asking(connection: Connection) -> Iterator[AdminClient]:
    with log_errors(), AdminClient(dict(connection.kafka), logger=log) as admin:
        yield admin


def _partitions(admin: AdminClient, topics: Sequence[str]) -> list[TopicPartition]:
    known = admin.list_topics(timeout=_TIMEOUT_S).topics
    missing = ", ".join(topic for topic in topics if topic not in known)
    if missing:
        raise TailraceError(f"there is no topic {missing} yet; see which there are with `tailrace status`")
    return [TopicPartition(topic, number) for topic in topics for number in sorted(known[topic].partitions)]


def _ends(admin: AdminClient, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Where each partition ends."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    return {tp: place.offset for tp, place in ask_offsets(admin, partitions, latest).items()}


def ask_offsets(
    admin: AdminClient, partitions: Sequence[TopicPartition], spec: Any
) -> dict[TopicPartition, Any]:
    """An offset of each partition, and its time. One that was made or moved a moment ago may have no leader yet."""
    asked = {Place(*tp): spec for tp in partitions}
    give_up = time.monotonic() + _TIMEOUT_S
    while asked:
        answers = admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_TIMEOUT_S
        )
        try:
            return {TopicPartition(p.topic, p.partition): a.result() for p, a in answers.items()}
        except KafkaException as error:
            if not isinstance(kind(error), Retriable) or time.monotonic() > give_up:
                raise
            time.sleep(0.05)
    return {}
