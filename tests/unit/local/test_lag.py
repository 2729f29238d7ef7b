"""How far a service says that it is, read from its metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from tailrace.local.lag import OffsetsAhead, offsets_ahead
from tailrace.streaming.records import TopicPartition

LABELS = ["group", "topic", "partition"]


def test_positions_and_what_is_ahead_of_them_are_read_by_partition() -> None:
    registry = CollectorRegistry()
    position = Gauge("kafka_consumergroup_current_offset", "", LABELS, registry=registry)
    ahead = Gauge("kafka_consumergroup_lag", "", LABELS, registry=registry)
    for topic, partition, offset, offsets in (
        ("t.requests", 0, 12_345_678, 3),
        ("t.requests", 1, 0, 0),
        ('odd"name', 0, 5, 100),
    ):
        position.labels("g", topic, partition).set(offset)
        ahead.labels("g", topic, partition).set(offsets)
    ahead.labels("g", "nobody-says-where", 0).set(7)
    assert offsets_ahead(generate_latest(registry).decode()) == {
        TopicPartition("t.requests", 0): OffsetsAhead(12_345_678, 3),
        TopicPartition("t.requests", 1): OffsetsAhead(0, 0),
        TopicPartition('odd"name', 0): OffsetsAhead(5, 100),
    }


def test_a_service_without_a_group_says_nothing_of_it() -> None:
    assert offsets_ahead("# TYPE up gauge\nup 1.0\n") is None
    assert offsets_ahead("") is None
