"""Places in a log as the client library has them, and how long it is let wait."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import TopicPartition as Place

from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.records import TopicPartition

CALL_S = 2.0
"""How long one call waits before it comes back as retriable, and whoever made it can look at the time."""


def places_of(offsets: Mapping[TopicPartition, Committed]) -> list[Place]:
    """What to commit."""
    return [Place(*tp, offset, metadata) for tp, (offset, metadata) in offsets.items()]
