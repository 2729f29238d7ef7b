"""Where a partition of a lane stands: stream times of its inputs, how far feedback was applied, watermarks written.

The inputs are the changelog: from ``restart`` on, they hold all that still matters.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from tailrace.joiner.packing import FORMAT
from tailrace.joiner.progress import NEVER, Progress
from tailrace.streaming.backends.abstract import Committed

PREDICTIONS, SHADOWS = "predictions", "shadow-predictions"
LABELS, ACTIONS, REKEYED = "labels", "actions", "rekeyed"
INPUTS = (PREDICTIONS, SHADOWS, LABELS, ACTIONS, REKEYED)
"""Suffixes of the topics that are consumed."""

CHECKPOINTS = 64
"""About so many checkpoints of an input are kept."""

Blocked = tuple[int, int, int, int]
"""A shadow prediction with an outcome that waits for the champion's answer: when it was known, partition and offset
of its request, and the stream time of the predictions at which it waits no longer.
"""


@dataclass(slots=True)
class PartitionState:
    """All that is known of a partition beside its requests.

    Attributes:
        offsets: of each input, the next to be read.
        stream_times: of each input, the largest event time or watermark so far; of rekeyed, the largest effective time.
        others: the stream times of the label and action partitions of other numbers, as watermark records in rekeyed
            have said them, by ``labels/3``; with the offset of the record.
        sources: up to where, including, the champion's answers have come, by partition of the requests.
        progress: how far what is due has been worked off.
        announced: stream times of this partition's labels and actions as the other partitions were sent them.
        written: by stream, the last watermark in the outcomes.
        blocked: by key of the request and id of the prediction.
        checkpoints: by input: (stream time, offset): nothing before the offset is later than the time.
    """

    offsets: dict[str, int] = field(default_factory=dict)
    stream_times: dict[str, int] = field(default_factory=lambda: dict.fromkeys(INPUTS, NEVER))
    others: dict[str, tuple[int, int]] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    announced: dict[str, int] = field(default_factory=lambda: dict.fromkeys((LABELS, ACTIONS), NEVER))
    written: dict[str, int] = field(default_factory=lambda: dict.fromkeys((PREDICTIONS, SHADOWS), NEVER))
    blocked: dict[tuple[bytes, bytes], Blocked] = field(default_factory=dict)
    checkpoints: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: {n: [] for n in INPUTS})

    def copy(self) -> PartitionState:
        copies: dict[str, Any] = {name: getattr(self, name).copy() for name in _NAMES}
        copies["checkpoints"] = {name: list(kept) for name, kept in self.checkpoints.items()}
        return PartitionState(**copies)

    def pack(self) -> bytes:
        values = {name: getattr(self, name) for name in _NAMES}
        own = [getattr(self.progress, each.name) for each in fields(Progress)]
        return marshal.dumps((FORMAT, [*(values | {"progress": own}).values()]))

    @classmethod
    def unpack(cls, data: bytes) -> PartitionState | None:
        """None where another version wrote it."""
        try:
            version, values = marshal.loads(data)  # noqa: S302 - a file of our own
        except (ValueError, EOFError, TypeError):
            return None
        if version != FORMAT or len(values) != len(fields(cls)):
            return None
        state = cls(*values)
        state.progress = Progress(*values[_NAMES.index("progress")])
        return state

    def watermark(self, partitions: int) -> int:
        """Before this, all feedback of this partition is known, whatever partition it came in."""
        if len(self.others) < 2 * (partitions - 1):
            return NEVER
        times = self.stream_times
        return min(times[LABELS], times[ACTIONS], *(time for time, _ in self.others.values()))

    def slowest(self, number: int) -> str:
        """The label or action partition whose stream time all others wait for; ``number`` is this one's."""
        times = {f"{name}/{number}": self.stream_times[name] for name in (LABELS, ACTIONS)}
        times |= {stream: time for stream, (time, _) in self.others.items()}
        return min(times, key=lambda stream: times[stream])

    def floor(self) -> int:
        """No request that is known later than this is affected by what has been applied and read."""
        times, blocked = self.stream_times, (known for known, *_ in self.blocked.values())
        return min(self.progress.applied[0], times[PREDICTIONS], times[SHADOWS], *blocked)

    def checkpoint(self, name: str, offset: int, grain: int) -> None:
        """Keeps the stream time that an input has before the record at ``offset``."""
        kept, stream_time = self.checkpoints[name], self.stream_times[name]
        if not kept or stream_time - kept[-1][0] >= grain:
            kept.append((stream_time, offset))

    def restart(self, name: str, before: int) -> tuple[int, int]:
        """(stream time, offset) from which an input is to be read where nothing of until ``before`` matters."""
        kept = self.checkpoints[name]
        stream_time, offset = self.stream_times[name], self.offsets[name]
        while len(kept) > 1 and kept[1][0] <= before:
            del kept[0]
        if stream_time > before and kept:
            stream_time, offset = kept[0]
        if name == REKEYED:
            offset = min([offset, *(other for _, other in self.others.values())])
        return stream_time, offset


_NAMES = [each.name for each in fields(PartitionState)]


class Facts(NamedTuple):
    """What is stored with an input's committed offset: where to read from if there is nothing else.

    Attributes:
        start, stream_time: offset, and the input's stream time before it.
        progress: see `PartitionState`; of what is released, with the predictions only.
        sources: see `PartitionState`; with the predictions only.
    """

    start: int
    stream_time: int = NEVER
    progress: Progress = Progress()
    sources: Mapping[int, int] = {}

    def to_metadata(self) -> str:
        sources = [[partition, offset] for partition, offset in sorted(self.sources.items())]
        progress = self.progress.to_json(self.sources)
        return json.dumps([self.start, self.stream_time, progress, sources], separators=(",", ":"))

    @classmethod
    def of(cls, committed: Committed) -> Facts:
        """What an earlier owner left; of a partition that none has had, its beginning."""
        if not committed.metadata:
            return cls(committed.offset)
        start, stream_time, progress, sources = json.loads(committed.metadata)
        sources = dict(sources)
        return cls(start, stream_time, Progress.of_json(progress, sources), sources)
