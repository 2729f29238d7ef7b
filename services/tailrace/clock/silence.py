"""When a partition is silent, and when a lane lives in wall time. Plain state and event in, verdict out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tailrace.streaming.records import TopicPartition

SILENT_MS = 5_000
"""A partition into which nothing came for so long gets a watermark record."""
LIVE_WITHIN_MS = 10 * 60_000
"""A request whose event time is so near its append time is one of now."""
LIVE_FOR_MS = 60_000
"""Requests of now for so long make traffic; a lone one, tried by hand, does not."""


@dataclass
class Silence:
    """Watches where partitions end.

    Attributes:
        seen: by partition, its end and when it was first seen there, in ms of wall time.
    """

    seen: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)

    def broken_at(self, ends: Mapping[TopicPartition, int], now_ms: int) -> dict[TopicPartition, int]:
        """The partitions that get a watermark record, each with its event time.

        It is as long ago as the silence has to last: what comes next was made later, unless its producer took longer
        than that. A partition that is left out of ``ends`` is forgotten.
        """
        event_times = {}
        seen = {}
        for partition, end in ends.items():
            known = self.seen.get(partition)
            since = now_ms if known is None or known[0] != end else known[1]
            if now_ms - since >= SILENT_MS:
                event_times[partition] = now_ms - SILENT_MS
                # The watermark record itself is one more; if it should fail, the silence starts anew.
                end, since = end + 1, now_ms
            seen[partition] = end, since
        self.seen = seen
        return event_times


@dataclass
class Traffic:
    """Watches the requests of lanes that have no clock yet.

    Attributes:
        since: by lane, the append time of the first of its latest requests that were all of now.
    """

    since: dict[str, int] = field(default_factory=dict)

    def is_live(self, lane: str, event_time: int, appended: int) -> bool:
        """Whether the lane's traffic is of now, after one request more; both times in ms."""
        if abs(appended - event_time) > LIVE_WITHIN_MS:
            self.since.pop(lane, None)
            return False
        return appended - self.since.setdefault(lane, appended) >= LIVE_FOR_MS
