"""How far a partition has come, as watermark records: for the other partitions, and for who reads the outcomes."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.contracts.records.lanes import Lane
from tailrace.joiner.partition_state import ACTIONS, LABELS, PREDICTIONS, SHADOWS, PartitionState
from tailrace.streaming.records import Record
from tailrace.streaming.watermark_records import watermark_record

MARK_EVERY_MS = 1_000
"""Watermark records are written when stream time has moved on by so much: event time, not wall time."""


def to_others(topics: Lane, number: int, partitions: int, state: PartitionState) -> Iterator[Record]:
    """The stream times of labels and actions, where they have moved on; ``state`` keeps which were sent."""
    for name in (LABELS, ACTIONS):
        stream_time = state.stream_times[name]
        if stream_time >= state.announced[name] + MARK_EVERY_MS:
            state.announced[name] = stream_time
            for other in range(partitions):
                if other != number:
                    yield watermark_record(topics.rekeyed, other, stream_time, stream=f"{name}/{number}")


def to_readers(topics: Lane, number: int, state: PartitionState) -> Iterator[Record]:
    """Before which time every outcome is written, by stream; ``state`` keeps which were sent."""
    waiting = [known for known, *_ in state.blocked.values()]
    for name in (PREDICTIONS, SHADOWS):
        time = min(state.progress.time, state.stream_times[name])
        if name == SHADOWS:
            time = min([time, *waiting])
        if time >= state.written[name] + MARK_EVERY_MS:
            state.written[name] = time
            yield watermark_record(topics.outcomes, number, time, stream=name)
