"""How far a partition has come, as watermark records: for the other partitions, and for who reads the outcomes."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.contracts.records.lanes import Lane
from tailrace.joiner.partition_state import ACTIONS, LABELS, PREDICTIONS, SHADOWS, PartitionState
from tailrace.streaming.records import Record
from tailrace.streaming.watermark_records import mark

MARK_EVERY_MS = 1_000
"""Marks are written when a clock has moved on by so much: event time, not wall time."""


def to_others(topics: Lane, number: int, partitions: int, standing: PartitionState) -> Iterator[Record]:
    """The clocks of labels and actions, where they have moved on; notes in ``standing`` what is told."""
    for name in (LABELS, ACTIONS):
        clock = standing.clocks[name]
        if clock >= standing.announced[name] + MARK_EVERY_MS:
            standing.announced[name] = clock
            for other in range(partitions):
                if other != number:
                    yield mark(topics.rekeyed, other, clock, stream=f"{name}/{number}")


def to_readers(topics: Lane, number: int, standing: PartitionState) -> Iterator[Record]:
    """Before which time every outcome is written, by stream; notes in ``standing`` what is told."""
    waiting = [known for known, *_ in standing.blocked.values()]
    for name in (PREDICTIONS, SHADOWS):
        time = min(standing.progress.time, standing.clocks[name])
        if name == SHADOWS:
            time = min([time, *waiting])
        if time >= standing.marked[name] + MARK_EVERY_MS:
            standing.marked[name] = time
            yield mark(topics.outcomes, number, time, stream=name)
