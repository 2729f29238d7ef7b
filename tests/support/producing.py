"""Hands a record to librdkafka's producer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from tailrace.streaming.records import Record

_BY_KEY = -1


def produce(
    producer: Producer, record: Record, on_delivery: Callable[[Any, Any], None] | None = None
) -> None:
    """Into the record's own partition; where it has none, the producer's partitioner chooses one."""
    partition = _BY_KEY if record.partition is None else record.partition
    producer.produce(
        record.topic,
        record.value,
        record.key,
        partition=partition,
        headers=list(record.headers),
        on_delivery=on_delivery,
    )
    producer.poll(0)
