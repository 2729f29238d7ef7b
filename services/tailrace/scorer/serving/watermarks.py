"""Stream time of each input partition, as watermark records in the partition of the same number of the answers.

Who reads the answers has to know that time passes though nothing is answered: requests become dead letters, no
version is in shadow, or the producer's keys lead elsewhere. So watermark records are passed on, and one is added
whenever the requests of a partition cross a multiple of the step. It carries that multiple, so that one that is
written once more, by a process that has not seen what came before, says nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tailrace.errors import BadRecord
from tailrace.scorer.batch import Batch
from tailrace.scorer.plans import LanePlans
from tailrace.streaming.records import TopicPartition
from tailrace.streaming.watermark_records import watermark_record

_NEVER = -(2**62)


def refuse_ahead(batch: Batch, plans: LanePlans) -> None:
    """Takes out watermark records that are further ahead of when they were appended than any honest one."""
    for at, time in list(batch.watermarks.items()):
        ahead = time - batch.appended[at]
        if ahead > plans.ahead_ms(batch.topics[at]):
            del batch.watermarks[at]
            reason = f"a watermark {ahead / 1000:,.0f} s after it was appended"
            batch.bad[at] = BadRecord("event-time-ahead", reason)


def pass_on(batch: Batch, plans: LanePlans) -> None:
    """Writes the watermark records that came in."""
    _write(batch, batch.watermarks, plans)


def advance(
    batch: Batch, stream_times: Mapping[TopicPartition, int], plans: LanePlans
) -> dict[TopicPartition, int]:
    """Adds watermark records where time crosses a multiple of the step; returns the stream times after the batch.

    Args:
        stream_times: those before the batch, as far as this process knows.
    """
    times = np.full(len(batch.topics), _NEVER, dtype=np.int64)
    for requests in batch.requests:
        own, appended = requests.event_times(batch.append_times)
        times[requests.at] = np.where(own > appended + requests.plan.contract.event_time.skew_ms, _NEVER, own)
    for at, time in batch.watermarks.items():
        times[at] = time
    after: dict[TopicPartition, int] = {}
    crossings: dict[int, int] = {}
    for tp, here in batch.places.items():
        length = plans.step_ms(tp.topic)
        reached = np.maximum.accumulate(np.concatenate(([stream_times.get(tp, _NEVER)], times[here])))
        after[tp] = int(reached[-1])
        starts = reached // length
        for at in here[starts[1:] > starts[:-1]].tolist():
            if at not in batch.watermarks:
                crossings[at] = int(times[at]) // length * length
    _write(batch, crossings, plans)
    return after


def _write(batch: Batch, times: Mapping[int, int], plans: LanePlans) -> None:
    """Watermark records of these times, by position of the message that each comes from."""
    if times:
        records = [
            watermark_record(
                plans.predictions(batch.topics[at]), batch.partitions[at], time, offset=batch.offsets[at]
            )
            for at, time in times.items()
        ]
        batch.write(np.array(list(times)), records)


def require_event_times(batch: Batch, is_replayed: Callable[[str], bool]) -> None:
    """Takes out the requests without an event time, in lanes (by name) that are replayed."""
    kept = []
    for requests in batch.requests:
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
            batch.bad[at] = BadRecord("missing-event-time", reason, name)
        if present.any():
            kept.append(requests.take(np.flatnonzero(present)))
    batch.requests = kept
