"""When a partition is silent, and when a lane lives in wall time. Plain state and event in, verdict out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tailrace.contracts.records.lanes import Lane
from tailrace.streaming.records import TopicPartition

SILENT_MS = 5_000
"""A partition into which nothing came for so long gets a watermark record."""
IDLE_SHARE = 12
"""Where a whole lane has been silent, the next watermark record comes after that silence's twelfth part ..."""
IDLE_MOST_MS = 60_000
"""... or after a minute, whichever is sooner."""
LIVE_WITHIN_MS = 10 * 60_000
"""A request whose event time is so near its append time is one of now."""
LIVE_FOR_MS = 60_000
"""Requests of now for so long make traffic; a lone one, tried by hand, does not."""


@dataclass
class Silence:
    """Watches where partitions end.

    While anything comes to a lane, its silent partitions get a watermark record every `SILENT_MS`: a label that comes
    now may wait for each of them. Where nothing comes to any of them, time moves windows and horizons alone, which
    lose at most a twelfth of what they have waited already; and a lane that nobody uses costs a twelfth of the records.

    Attributes:
        seen: by partition, its end and when it was first seen there, in ms of wall time.
        heard: by lane, when something else than a watermark record of ours last came to it, in ms of wall time.
    """

    seen: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)

    def broken_at(self, ends: Mapping[TopicPartition, int], now_ms: int) -> dict[TopicPartition, int]:
        """The partitions that get a watermark record, each with its event time.

        It is as long ago as the silence has to last: what comes next was made later, unless its producer took longer
        than that. A partition that is left out of ``ends`` is forgotten.
        """
        event_times = {}
        seen = {}
        self._listen(ends, now_ms)
        for partition, end in ends.items():
            known = self.seen.get(partition)
            since = now_ms if known is None or known[0] != end else known[1]
            if now_ms - since >= self._spacing(partition, now_ms):
                event_times[partition] = now_ms - SILENT_MS
                # The watermark record itself is one more; if it should fail, the silence starts anew.
                end, since = end + 1, now_ms
            seen[partition] = end, since
        self.seen = seen
        return event_times

    def _listen(self, ends: Mapping[TopicPartition, int], now_ms: int) -> None:
        heard: dict[str, int] = {}
        for partition, end in ends.items():
            lane, known = Lane.of(partition.topic).name, self.seen.get(partition)
            is_news = known is None or known[0] != end
            heard[lane] = now_ms if is_news else max(heard.get(lane, 0), self.heard.get(lane, now_ms))
        self.heard = heard

    def _spacing(self, partition: TopicPartition, now_ms: int) -> int:
        idle_ms = now_ms - self.heard[Lane.of(partition.topic).name]
        return min(IDLE_MOST_MS, max(SILENT_MS, idle_ms // IDLE_SHARE))


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
