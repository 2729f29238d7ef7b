"""Sends records to Kafka, and waits until it has them."""

from __future__ import annotations

from collections.abc import Iterable

from tailrace.connection import Connection
from tailrace.errors import TailraceError
from tailrace.streaming.records import Record

DELIVERY_S = 30.0


def deliver(
    connection: Connection, records: Iterable[Record], what: str, timeout_s: float = DELIVERY_S
) -> list[int]:
    """The offsets of the records. ``what`` names them for people.

    Raises:
        TailraceError: Kafka does not take one of them, or has not said in time that it has them all.
    """
    from confluent_kafka import KafkaException

    from tailrace.streaming.backends.kafka.clients import sending

    try:
        with sending({**connection.kafka, "log_level": 0}) as producer:
            return producer.deliver(records, timeout_s)
    except KafkaException as failed:
        reason = failed.args[0].str()
        raise TailraceError(
            f"Kafka did not take {what} ({reason}): see `tailrace status`, then run it again"
        ) from failed
