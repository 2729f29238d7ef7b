"""Whether ClickHouse has each event once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from tailrace.runtime.patience import Patience
from tailrace.streaming.records import TopicPartition as Partition
from tailrace.verify.check import AccountProblem, Offsets, compare_rows, problems_at
from tailrace.verify.log import OffsetRange
from tailrace.verify.report import VerifyReport
from tailrace.verify.rows import NOTHING, Digest, StoredRows

_POLL_S = 0.25


def compare_events(
    rows: StoredRows,
    events: Mapping[Partition, Offsets],
    ranges: Mapping[Partition, OffsetRange],
    wait_s: float,
    is_compacted: Callable[[str], bool],
    report: VerifyReport,
) -> None:
    """Compares rows with events, once the sink had time to store what was read.

    Args:
        wait_s: how long the sink may store nothing before it has caught up.
        is_compacted: of a topic: its rows may outlive their events.
    """
    digests, behind = _caught_up(rows, events, ranges, wait_s)
    for partition in ranges:
        topic = report.topic(partition.topic)
        topic.rows = (topic.rows or 0) + digests.get(partition, NOTHING).rows
    for partition in behind:
        stored = rows.offsets(partition, ranges[partition])
        report.report_problems(_differences(partition, events[partition], stored, is_compacted))


def _caught_up(
    rows: StoredRows,
    events: Mapping[Partition, Offsets],
    ranges: Mapping[Partition, OffsetRange],
    wait_s: float,
) -> tuple[Mapping[Partition, Digest], list[Partition]]:
    """What is stored in the end, and the partitions of which that is not what it should be."""
    wanted = {p: Digest.of(offsets) for p, offsets in events.items()}
    patience = Patience(wait_s)
    while True:
        digests = rows.digests(ranges)
        behind = [p for p in ranges if digests.get(p, NOTHING) != wanted[p]]
        if not behind or not patience.look(sum(digest.rows for digest in digests.values())):
            return digests, behind
        time.sleep(_POLL_S)


def _differences(
    partition: Partition, events: Offsets, stored: Offsets, is_compacted: Callable[[str], bool]
) -> Iterator[AccountProblem]:
    result = compare_rows(events, stored)
    yield from problems_at("unstored", partition, result.missing, "has no row in ClickHouse")
    yield from problems_at("stored-twice", partition, result.doubled, "has several rows")
    if not is_compacted(partition.topic):
        yield from problems_at("no-event", partition, result.unknown, "a row without an event")
