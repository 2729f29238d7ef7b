"""Finds dead letters and sends them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError

from tailrace.cli.control import contracts
from tailrace.client import kafka
from tailrace.client.errors import DeliveryFailed
from tailrace.connection import Connection
from tailrace.contracts.records.lanes import Lane
from tailrace.errors import TailraceError, UsageError
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.kafka.reading import read_all, read_at
from tailrace.streaming.dead_letters import DeadLetterInfo
from tailrace.streaming.records import Message, RecordRef

RESENT = "tailrace-resent"
"""Header of a record that was sent again: the coordinates of its dead letter."""


class StoredDeadLetter(NamedTuple):
    """A dead letter, its own coordinates and when it was appended (ms)."""

    at: RecordRef
    time_ms: int
    letter: DeadLetterInfo
    message: Message


def find(
    connection: Connection, model: str | None = None, code: str | None = None
) -> Iterator[StoredDeadLetter]:
    """Every dead letter that is retained, of one model's lane or of all, with this code or any."""
    known = contracts(connection)
    chosen = known.current.values() if model is None else [known.in_force(model)]
    lanes = {applied.contract.lane for applied in chosen}
    for message in read_all(connection, [Lane(lane).dead_letters for lane in sorted(lanes)]):
        if message.value() is not None or message.headers():
            try:
                letter = dead_letters.parse(message)
            except ValueError:
                continue  # somebody else's record; `tail` shows it
            if code in (None, letter.code):
                yield StoredDeadLetter(RecordRef.of(message), message.timestamp()[1], letter, message)


def coordinates(text: str) -> RecordRef:
    """Parses ``topic/partition/offset``.

    Raises:
        UsageError: it is not of that form.
    """
    topic, partition, offset = [*text.rsplit("/", 2), "", ""][:3]
    if not (topic and partition.isdecimal() and offset.isdecimal()):
        raise UsageError(f"{text!r}: write topic/partition/offset, as `tailrace dlq list` prints them")
    return RecordRef(topic, int(partition), int(offset))


def one(connection: Connection, where: RecordRef) -> StoredDeadLetter:
    """The dead letter at these coordinates.

    Raises:
        UsageError: there is none, or no longer.
    """
    message = read_at(connection, where.topic, [where[1:]]).get(where[1:])
    if message is None:
        raise UsageError(f"there is no record at {where}; `tailrace dlq list` shows what is there")
    try:
        return StoredDeadLetter(where, message.timestamp()[1], dead_letters.parse(message), message)
    except ValueError as error:
        raise UsageError(str(error)) from None


def resend(
    connection: Connection, letters: Iterable[StoredDeadLetter], again: bool = False
) -> dict[RecordRef, str | None]:
    """Sends the original bytes to the topic they came from, naming the dead letter in a header.

    Whether a dead letter was sent before is read from the log itself: from the records with that header.

    Returns:
        For each dead letter None where it was sent, otherwise why not.

    Raises:
        DeliveryFailed: Kafka did not take some of them.
    """
    chosen = list(letters)
    if not chosen:
        return {}
    before = set() if again else _resent(connection, chosen)
    outcome: dict[RecordRef, str | None] = {}
    failed: list[str] = []
    with closing(kafka.producer(connection)) as producer:
        for at, _, letter, _ in chosen:
            outcome[at] = _refusal(letter, str(at) in before)
            if outcome[at] is None:
                producer.produce(
                    letter.source.topic,
                    letter.value,
                    letter.key,
                    headers=[*letter.headers, (RESENT, str(at).encode())],
                    on_delivery=partial(_delivered, failed, at),
                )
                producer.poll(0)
        unsent = producer.flush(30)
    if failed:
        raise DeliveryFailed("refused by Kafka", failed)
    if unsent:
        raise TailraceError(f"Kafka at {connection.bootstrap} has not taken {unsent} records within 30 s")
    return outcome


def _refusal(letter: DeadLetterInfo, was_sent: bool) -> str | None:
    """Why it is not sent; None where it is."""
    if was_sent:
        return "was sent again already (--again sends it once more)"
    if letter.sha256 is not None:
        return "too large: only its beginning was kept, send it from where it came from"
    return None


def _delivered(failed: list[str], at: RecordRef, error: KafkaError | None, _: Any) -> None:
    if error is not None:
        failed.append(f"{at} ({error.str()})")


def _resent(connection: Connection, letters: list[StoredDeadLetter]) -> set[str]:
    """Coordinates of dead letters that records of the source topics name."""
    topics = sorted({stored.letter.source.topic for stored in letters})
    since = kafka.since(min(stored.time_ms for stored in letters))
    names: set[str] = set()
    with closing(kafka.Follower(connection, topics, since)) as follower:
        while not follower.caught_up():
            if (message := follower.poll(0.1)) is not None:
                names |= {content.decode() for name, content in message.headers() or () if name == RESENT}
    return names
