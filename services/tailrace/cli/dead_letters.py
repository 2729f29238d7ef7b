"""Finds dead letters and sends them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from tailrace.streaming.backends.kafka.clients import BoundedProducer
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


def find(connection: Connection, model: str | None = None) -> Iterator[StoredDeadLetter]:
    """Every dead letter that is retained, of one model's lane or of all."""
    known = contracts(connection)
    chosen = known.current.values() if model is None else [known.in_force(model)]
    lanes = {applied.contract.lane for applied in chosen}
    for message in read_all(connection, [Lane(lane).dead_letters for lane in sorted(lanes)]):
        if message.value() is not None or message.headers():
            try:
                letter = dead_letters.parse(message)
            except ValueError:
                continue  # somebody else's record; `tail` shows it
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
    producer = kafka.producer(connection)
    try:
        left = _send(producer, chosen, before, outcome, failed)
    finally:
        producer.close()
    if failed:
        raise DeliveryFailed("refused by Kafka", failed)
    if left:
        raise TailraceError(f"Kafka at {connection.bootstrap} has not taken {left} records within 30 s")
    return outcome


def _send(
    producer: BoundedProducer,
    chosen: list[StoredDeadLetter],
    before: set[str],
    outcome: dict[RecordRef, str | None],
    failed: list[str],
) -> int:
    """Says in ``outcome`` what became of each; how many records Kafka has not taken."""
    for found in chosen:
        letter = found.letter
        if str(found.at) in before:
            outcome[found.at] = "was sent again already (--again sends it once more)"
        elif letter.sha256 is not None:
            outcome[found.at] = "too large: only its beginning was kept, send it from where it came from"
        else:
            producer.produce(
                letter.source.topic,
                letter.value,
                letter.key,
                headers=[*letter.headers, (RESENT, str(found.at).encode())],
                on_delivery=partial(_delivered, failed, found.at),
            )
            producer.poll(0)
            outcome[found.at] = None
    return producer.flush(30)


def _delivered(failed: list[str], at: RecordRef, error: KafkaError | None, _: Any) -> None:
    if error is not None:
        failed.append(f"{at} ({error.str()})")


def _resent(connection: Connection, letters: list[StoredDeadLetter]) -> set[str]:
    """Coordinates of dead letters that records of the source topics name."""
    topics = sorted({found.letter.source.topic for found in letters})
    follower = kafka.Follower(connection, topics, kafka.since(min(found.time_ms for found in letters)))
    names: set[str] = set()
    try:
        while not follower.caught_up():
            message = follower.poll(0.1)
            if message is not None:
                names |= {content.decode() for name, content in message.headers() or () if name == RESENT}
    finally:
        follower.close()
    return names
