"""The first stage of windows: stream times, and what a batch adds to which window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.streaming.records import DeadLetter, Message, TopicPartition
from tailrace.streaming.watermark_records import watermark_stream, watermark_time
from tailrace.windows.kinds import NO_TIME, Cell, ReadRows, Times, Windows

Clocks = Mapping[tuple[TopicPartition, str], int]
"""The stream time of each stream in each partition."""

_MOST_BYTES = 1024 * 1024
"""Of counts in one part."""


class CountedBatch(NamedTuple):
    """What a batch comes to: cells by lane and model, stream times that moved, and messages that cannot be read."""

    cells: dict[tuple[str, str], list[Cell]]
    clocks: dict[tuple[TopicPartition, str], int]
    dead_letters: list[DeadLetter]


def count(windows: Windows, batch: Sequence[Message], clocks: Clocks) -> CountedBatch:
    """Counts a batch of the lanes' topics, given the stream times before it."""
    counted = CountedBatch(defaultdict(list), {}, [])
    by_topic: dict[str, list[Message]] = defaultdict(list)
    for message in batch:
        by_topic[message.topic()].append(message)
    for topic, messages in by_topic.items():
        _count_topic(windows, topic, messages, clocks, counted)
    return counted


def _count_topic(
    windows: Windows, topic: str, messages: Sequence[Message], clocks: Clocks, counted: CountedBatch
) -> None:
    messages = _honest(windows, topic, messages, counted)
    if not messages:
        return
    stream = windows.stream_of(topic)
    is_row = np.array([message.value() is not None for message in messages], dtype=np.bool_)
    rows = [message for message in messages if message.value() is not None]
    read = windows.read(topic, rows) if rows else ReadRows(np.empty(0, dtype=np.int64), {}, None)
    lane = Lane.of(topic)
    counted.dead_letters.extend(
        DeadLetter(lane.dead_letters, rows[at], bad.code, bad.reason, bad.field)
        for at, bad in sorted(read.bad.items())
    )
    if stream is None:
        before = np.full(len(messages), NO_TIME, dtype=np.int64)
        streams = {own for other in windows.topics() if (own := windows.stream_of(other)) is not None}
        _move_by_marks(messages, is_row, clocks, counted, streams)
    else:
        times = _times(messages, is_row, read.times, read.bad)
        before = _move(stream, topic, messages, times, clocks, counted)
    if rows:
        for model, cell in windows.count(topic, read, before[is_row]):
            counted.cells[lane.name, model].append(cell)


def _honest(
    windows: Windows, topic: str, messages: Sequence[Message], counted: CountedBatch
) -> Sequence[Message]:
    """The messages, without those that have neither a value nor a watermark, or one further ahead than is honest."""
    lane = Lane.of(topic)
    applied = (each for history in windows.contracts().history.values() for each in history)
    ahead = max((a.contract.event_time.ahead_ms for a in applied if a.contract.lane == lane.name), default=0)
    kept = []
    for message in messages:
        if message.value() is None:
            time, appended = watermark_time(message), message.timestamp()[1]
            if time is None or time > appended + ahead:
                code = "empty" if time is None else "event-time-ahead"
                reason = "neither a value nor a watermark, or a watermark far ahead of its append time"
                counted.dead_letters.append(DeadLetter(lane.dead_letters, message, code, reason))
                continue
        kept.append(message)
    return kept


def _times(
    messages: Sequence[Message],
    is_row: np.ndarray[Any, np.dtype[np.bool_]],
    row_times: Times,
    bad: Iterable[int],
) -> Times:
    """What each message says of the time; what cannot be read says nothing."""
    good_times = row_times.copy()
    good_times[list(bad)] = NO_TIME
    times = np.full(len(messages), NO_TIME, dtype=np.int64)
    times[is_row] = good_times
    for at in np.flatnonzero(~is_row).tolist():
        time = watermark_time(messages[at])
        if time is not None:
            times[at] = time
    return times


def _move(
    stream: str, topic: str, messages: Sequence[Message], times: Times, clocks: Clocks, counted: CountedBatch
) -> Times:
    """Moves the stream times of a stream's topic; returns what they were before each message."""
    before = np.empty(len(messages), dtype=np.int64)
    partitions = np.array([message.partition() for message in messages])
    for partition in np.unique(partitions).tolist():
        at = np.flatnonzero(partitions == partition)
        key = TopicPartition(topic, partition), stream
        stream_time = clocks.get(key, NO_TIME)
        stream_times = np.maximum.accumulate(np.concatenate(([stream_time], times[at])))
        before[at] = stream_times[:-1]
        if stream_times[-1] > stream_time:
            counted.clocks[key] = int(stream_times[-1])
    return before


def _move_by_marks(
    messages: Sequence[Message],
    is_row: np.ndarray[Any, np.dtype[np.bool_]],
    clocks: Clocks,
    counted: CountedBatch,
    streams: Collection[str],
) -> None:
    for at in np.flatnonzero(~is_row).tolist():
        message = messages[at]
        time, stream = watermark_time(message), watermark_stream(message)
        if time is None or stream is None or stream not in streams:
            continue
        key = TopicPartition(message.topic(), message.partition()), stream
        if time > max(clocks.get(key, NO_TIME), counted.clocks.get(key, NO_TIME)):
            counted.clocks[key] = time


def crosses(windows: Windows, contracts: Sequence[AppliedContract], before: int, after: int) -> bool:
    """Whether a stream time that moves passes a time at which windows of these contracts are judged."""
    for contract in contracts:
        length = windows.length_ms(contract)
        for age in range(windows.ages(contract)):
            first = windows.closes_at(contract, 0, age)
            if (after - first) // length > (before - first) // length:
                return True
    return False


def parts(
    kind: str, model: str, lane: str, partitions: int, cells: Sequence[Cell], clocks: Clocks
) -> list[dict[str, Any]]:
    """A model's cells and claims as records (schema ``WindowPart``).

    The claims come last, since they say that all before is counted.
    """
    claims = [{**tp._asdict(), "stream": name, "time": time} for (tp, name), time in sorted(clocks.items())]
    head = {"kind": kind, "model": model, "lane": lane, "partitions": partitions}
    full_parts: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    size = 0
    for cell in sorted(cells):
        if rest and size + len(cell.counts) > _MOST_BYTES:
            full_parts.append({**head, "claims": [], "cells": rest})
            rest, size = [], 0
        rest.append(cell._asdict())
        size += len(cell.counts)
    return [*full_parts, {**head, "claims": claims, "cells": rest}]
