"""What the sink is about to insert, written to the log before it does.

A plan is the metadata of a partition's committed offset: insert everything from that offset up to ``end``. It
also says which of these records count as unreadable, since a schema that is unknown today may be registered
tomorrow: whoever repeats the plan puts every record into the same table again, and so under the same token the
same rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tailrace.streaming.backends.abstract import MAX_METADATA_BYTES
from tailrace.streaming.records import TopicPartition

_ROOM = 100
"""Bytes of the metadata that are kept for how often processes have died."""


class InsertPlan(NamedTuple):
    """The records of one partition from ``start`` up to, not including, ``end``.

    Attributes:
        unreadable: ranges of offsets, first and last, of the records among them that go to ``unreadable``.
    """

    start: int
    end: int
    unreadable: tuple[tuple[int, int], ...] = ()

    def token(self, partition: TopicPartition) -> str:
        """Under which ClickHouse takes the plan's block of a table once."""
        return f"{partition.topic}/{partition.partition}/{self.start}/{self.end}"

    def is_unreadable(self, offset: int) -> bool:
        return any(first <= offset <= last for first, last in self.unreadable)

    def pack(self) -> str:
        facts: dict[str, object] = {"end": self.end}
        if self.unreadable:
            facts["unreadable"] = [
                [first - self.start, last - self.start] if last > first else first - self.start
                for first, last in self.unreadable
            ]
        return json.dumps(facts, separators=(",", ":"))

    @classmethod
    def unpack(cls, start: int, metadata: str) -> InsertPlan | None:
        """The plan that is pending at a committed offset; None where none is."""
        if not metadata:
            return None
        facts = json.loads(metadata)
        ranges = (r if isinstance(r, list) else (r, r) for r in facts.get("unreadable", ()))
        return cls(start, facts["end"], tuple((start + first, start + last) for first, last in ranges))


def make_plan(start: int, records: Sequence[tuple[int, bool]]) -> InsertPlan:
    """The longest plan from ``start`` that fits into a commit's metadata.

    Args:
        start: the committed offset.
        records: of each record its offset, in order, and whether it is readable; at least one.
    """
    plan = InsertPlan(start, records[-1][0] + 1, _ranges(records))
    while len(plan.pack()) > MAX_METADATA_BYTES - _ROOM:
        # Each range that has to go takes the records from its first one on with it.
        kept = plan.unreadable[: len(plan.unreadable) * 3 // 4]
        plan = InsertPlan(start, plan.unreadable[len(kept)][0], kept)
    return plan


def _ranges(records: Iterable[tuple[int, bool]]) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    unbroken = False
    for offset, readable in records:
        if not readable:
            if unbroken:
                ranges[-1] = (ranges[-1][0], offset)
            else:
                ranges.append((offset, offset))
        unbroken = not readable
    return tuple(ranges)
