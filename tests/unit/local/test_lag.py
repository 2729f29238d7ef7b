"""How far a service says that it is, read from its metrics."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from tailrace.local import lag as module
from tailrace.local.lag import Lag, OffsetsAhead, count_records, offsets_ahead
from tailrace.streaming.records import PlainMessage, TopicPartition
from tailrace.streaming.watermark_records import HEADER

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


class History:
    """Reads a partition in which one offset of a hundred is a record and all others watermark records."""

    def __init__(self, connection: Any, stretches: dict[TopicPartition, tuple[int, int]]) -> None:
        [(partition, (self._next, self._end))] = stretches.items()
        self._topic, self._number = partition

    def caught_up(self) -> bool:
        return self._next == self._end

    def poll(self, timeout: float) -> list[PlainMessage]:
        offset, self._next = self._next, self._next + 1
        value, headers = (b"record", []) if offset % 100 == 0 else (None, [(HEADER, b"7")])
        return [PlainMessage(self._topic, self._number, offset, value, None, headers, 0)]

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("position", "offsets", "lag"),
    [
        (1, 100, Lag(1, True)),
        (1, 99, Lag(0, True)),
        (1, 250, Lag(2, True)),
        # Of more than can be looked at, records are as frequent as in what was: 2 of 250.
        (1, 251, Lag(3, False)),
        (1, 1_000, Lag(8, False)),
        (1, 0, Lag(0, True)),
    ],
)
def test_records_are_counted_among_watermark_records(
    position: int, offsets: int, lag: Lag, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HistoryReader", History)
    monkeypatch.setattr(module, "MOST_READ", 250)
    connection: Any = object()
    assert count_records(connection, {TopicPartition("t", 0): OffsetsAhead(position, offsets)}) == lag
