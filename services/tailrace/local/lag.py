"""How many records a service has still to read: records, where Kafka counts offsets.

A transaction's marker and a watermark record take an offset each, and in a quiet lane nothing else comes. So what lies
between a service's position and a partition's end is read, and the records in it are counted.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tailrace.connection import Connection
from tailrace.errors import TailraceError
from tailrace.streaming.backends.abstract import LogError
from tailrace.streaming.backends.kafka.reading import HistoryReader
from tailrace.streaming.records import TopicPartition
from tailrace.streaming.watermark_records import watermark_time

MOST_READ = 20_000
"""Offsets of one partition that are looked at; of more, their share of records is taken for that of the rest."""
PATIENCE_S = 3.0
"""Time for all of them together; what is not read by then counts as records."""

_OFFSET, _LAG = "kafka_consumergroup_current_offset", "kafka_consumergroup_lag"


class OffsetsAhead(NamedTuple):
    """What a service has before it in one partition: from its position, so many offsets."""

    position: int
    offsets: int


class Lag(NamedTuple):
    """Records still to be read, over all partitions; whether each of them was counted."""

    records: int
    is_counted: bool


def offsets_ahead(metrics: str) -> dict[TopicPartition, OffsetsAhead] | None:
    """By partition, as a service's /metrics say; None where they say nothing of it."""
    values: dict[str, dict[TopicPartition, int]] = {_OFFSET: {}, _LAG: {}}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name in values:
                partition = TopicPartition(sample.labels["topic"], int(sample.labels["partition"]))
                values[sample.name][partition] = int(sample.value)
    ahead = {
        tp: OffsetsAhead(values[_OFFSET][tp], offsets)
        for tp, offsets in values[_LAG].items()
        if tp in values[_OFFSET]
    }
    return ahead or None


def count_records(connection: Connection | None, ahead: Mapping[TopicPartition, OffsetsAhead]) -> Lag:
    """The records among offsets. Where Kafka does not hand them over, each offset counts as one.

    Args:
        connection: None where Kafka is known not to answer.
    """
    waiting = {tp: each for tp, each in ahead.items() if each.offsets > 0}
    looked_at = {tp: min(each.offsets, MOST_READ) for tp, each in waiting.items()}
    stretches = {tp: (waiting[tp].position, offsets) for tp, offsets in looked_at.items()}
    records = None if connection is None else _records_in(connection, stretches)
    if records is None:
        return Lag(sum(each.offsets for each in waiting.values()), not waiting)
    total = sum(math.ceil(records[tp] * each.offsets / looked_at[tp]) for tp, each in waiting.items())
    return Lag(total, all(looked_at[tp] == each.offsets for tp, each in waiting.items()))


def _records_in(
    connection: Connection, stretches: Mapping[TopicPartition, tuple[int, int]]
) -> Counter[TopicPartition] | None:
    """By partition, the records among so many offsets from a place on; None where they cannot be read in time."""
    counts: Counter[TopicPartition] = Counter()
    if not stretches:
        return counts
    deadline = time.monotonic() + PATIENCE_S
    try:
        history = {tp: (start, start + offsets) for tp, (start, offsets) in stretches.items()}
        with closing(HistoryReader(connection, history)) as reader:
            while not reader.caught_up():
                if time.monotonic() > deadline:
                    return None
                for message in reader.poll(0.2):
                    if watermark_time(message) is None:
                        counts[TopicPartition(message.topic(), message.partition())] += 1
    except (LogError, TailraceError):
        return None
    return counts
