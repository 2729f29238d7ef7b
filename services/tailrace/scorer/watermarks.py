"""How far time has come in each input partition, told to the partition of the same number of the answers.

Who reads the answers has to know that time passes though nothing is answered: requests become dead letters, no
version is in shadow, or the producer's keys lead elsewhere. So marks are passed on, and a mark is added whenever
the requests of a partition cross a multiple of the step. It carries that multiple, so that one that is written
once more, by a process that has not seen what came before, says nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tailrace.errors import BadRecord
from tailrace.scorer.batch import Batch
from tailrace.scorer.rows import Requests
from tailrace.streaming.records import Record, TopicPartition
from tailrace.streaming.watermark_records import mark

_NEVER = -(2**62)


def refuse_marks_ahead(work: Batch, ahead_ms: Callable[[str], int]) -> None:
    """Takes out marks that are further ahead of the time at which they were appended than any honest one."""
    for at, time in list(work.marks.items()):
        ahead = time - work.appended[at]
        if ahead > ahead_ms(work.topics[at]):
            del work.marks[at]
            work.bad[at] = BadRecord(
                "event-time-ahead", f"a mark {ahead / 1000:,.0f} s after it was appended"
            )


def pass_on(work: Batch, target: Callable[[str], str]) -> None:
    """Writes the marks that came in."""
    if work.marks:
        records = [_mark(work, at, target(work.topics[at]), time) for at, time in work.marks.items()]
        work.write(np.array(list(work.marks)), records)


def tell_time(
    work: Batch,
    requests: list[Requests],
    clocks: Mapping[TopicPartition, int],
    step: Callable[[str], int],
    target: Callable[[str], str],
) -> dict[TopicPartition, int]:
    """Adds marks where time crosses a multiple of the step; returns the clocks after the batch.

    Args:
        clocks: the largest event times before the batch, as far as this process knows.
        step: by topic, in milliseconds.
        target: the topic of the answers, by topic.
    """
    times = np.full(len(work.topics), _NEVER, dtype=np.int64)
    for some in requests:
        own, appended = some.event_times(work.append_times)
        times[some.at] = np.where(own > appended + some.plan.contract.event_time.skew_ms, _NEVER, own)
    for at, time in work.marks.items():
        times[at] = time
    after: dict[TopicPartition, int] = {}
    positions: list[int] = []
    records: list[Record] = []
    for tp, here in work.places.items():
        length = step(tp.topic)
        told = np.maximum.accumulate(np.concatenate(([clocks.get(tp, _NEVER)], times[here])))
        after[tp] = int(told[-1])
        starts = told // length
        for at in here[starts[1:] > starts[:-1]].tolist():
            if at not in work.marks:
                positions.append(at)
                records.append(_mark(work, at, target(tp.topic), int(times[at]) // length * length))
    if positions:
        work.write(np.array(positions), records)
    return after


def _mark(work: Batch, at: int, topic: str, time: int) -> Record:
    return mark(topic, work.partitions[at], time, offset=work.offsets[at])


def require_time(work: Batch, is_replayed: Callable[[str], bool]) -> None:
    """Takes out the requests without an event time, in lanes (by name) that are replayed."""
    kept = []
    for requests in work.requests:
        lane, name = requests.plan.lane.name, requests.plan.contract.event_time.name
        present = requests.columns[name].present
        if present is None or present.all() or not is_replayed(lane):
            kept.append(requests)
            continue
        for at in requests.at[~present].tolist():
            reason = (
                f"the clock of lane {lane} is a replay's: say {name}, or end the replay's time with "
                f"`tailrace clock {requests.plan.model} wall`"
            )
            work.bad[at] = BadRecord("missing-event-time", reason, name)
        if present.any():
            kept.append(requests.take(np.flatnonzero(present)))
    work.requests = kept
