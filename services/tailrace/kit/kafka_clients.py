"""Clients of Kafka that end with the block in which they are used.

One that outlives its broker says so on stderr for as long as its process lives. ``AdminClient`` and ``Consumer`` are
context managers that end at once. A producer's own ``close`` waits: for what is undelivered, minutes where the broker
is gone, and for the end of a transaction, without limit there. So one that writes without transactions is used with
`sending`; a transactional one is dropped (``del``), which ends it at once and leaves its transaction to its timeout or
to the next producer of its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Producer


@contextmanager
def sending(options: Mapping[str, Any]) -> Iterator[Producer]:
    """A producer without transactions, for the block. What has not been delivered at its end, is not any more."""
    assert "transactional.id" not in options, "a transactional producer is dropped, not closed"
    producer = Producer(dict(options))
    try:
        yield producer
    finally:
        end(producer)


def end(producer: Producer) -> None:
    """Ends a producer without transactions at once; what it had not delivered is given up."""
    producer.purge()
    producer.close()
