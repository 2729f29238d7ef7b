"""Where a partition of a lane stands: the clocks of its inputs, how far truths were applied, what was said of it.

The inputs are the changelog: from ``restart`` on, they say again all that still matters.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple

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
of its request, and the clock of the predictions at which it waits no longer.
"""


@dataclass(slots=True)
class PartitionState:
    """All that is known of a partition beside its requests.

    Attributes:
        offsets: of each input, the next to be read.
        clocks: of each input but rekeyed, the largest event time or mark so far.
        others: the clocks of the label and action partitions of other numbers, as marks in rekeyed have said them,
            by ``labels/3``; with the offset of the mark.
        sources: up to where, including, the champion's answers have come, by partition of the requests.
        progress: how far what is due has been worked off.
        announced: clocks of this partition's labels and actions as told to the other partitions.
        marked: by stream, what the last mark in the outcomes said.
        blocked: by key of the request and id of the prediction.
        checkpoints: by input: (clock, offset): nothing before the offset is later than the clock.
    """

    offsets: dict[str, int] = field(default_factory=dict)
    clocks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(INPUTS, NEVER))
    others: dict[str, tuple[int, int]] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    announced: dict[str, int] = field(default_factory=lambda: dict.fromkeys((LABELS, ACTIONS), NEVER))
    marked: dict[str, int] = field(default_factory=lambda: dict.fromkeys((PREDICTIONS, SHADOWS), NEVER))
    blocked: dict[tuple[bytes, bytes], Blocked] = field(default_factory=dict)
    checkpoints: dict[str, list[tuple[int, int]]] = field(
        default_factory=lambda: {name: [] for name in INPUTS}
    )

    def copy(self) -> PartitionState:
        return PartitionState(
            dict(self.offsets),
            dict(self.clocks),
            dict(self.others),
            dict(self.sources),
            self.progress.copy(),
            dict(self.announced),
            dict(self.marked),
            dict(self.blocked),
            {name: list(kept) for name, kept in self.checkpoints.items()},
        )

    def pack(self) -> bytes:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
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
        found = cls(*values)
        found.progress = Progress(*values[_PROGRESS])
        return found

    def watermark(self, partitions: int) -> int:
        """Before this, all truths of this partition are known, whatever partition they came in."""
        if len(self.others) < 2 * (partitions - 1):
            return NEVER
        return min(self.clocks[LABELS], self.clocks[ACTIONS], *(clock for clock, _ in self.others.values()))

    def slowest(self, number: int) -> str:
        """The label or action partition whose clock all others wait for; ``number`` is this one's."""
        clocks = {f"{name}/{number}": self.clocks[name] for name in (LABELS, ACTIONS)}
        clocks |= {stream: clock for stream, (clock, _) in self.others.items()}
        return min(clocks, key=lambda stream: clocks[stream])

    def floor(self) -> int:
        """No request that is known later than this is affected by what has been applied and read."""
        return min(
            self.progress.applied[0],
            self.clocks[PREDICTIONS],
            self.clocks[SHADOWS],
            *(known for known, *_ in self.blocked.values()),
        )

    def checkpoint(self, name: str, clock: int, offset: int, grain: int) -> None:
        """Notes where an input's clock stood before the record at ``offset``."""
        kept = self.checkpoints[name]
        if not kept or clock - kept[-1][0] >= grain:
            kept.append((clock, offset))

    def restart(self, name: str, before: int) -> tuple[int, int]:
        """(clock, offset) from which an input is to be read where nothing of until ``before`` matters."""
        kept = self.checkpoints[name]
        now = self.clocks[name], self.offsets[name]
        while len(kept) > 1 and kept[1][0] <= before:
            del kept[0]
        found = now if now[0] <= before or not kept else kept[0]
        if name != REKEYED:
            return found
        return found[0], min([found[1], *(offset for _, offset in self.others.values())])


_PROGRESS = [each.name for each in fields(PartitionState)].index("progress")


class Facts(NamedTuple):
    """What is stored with an input's committed offset: where to read from if there is nothing else.

    Attributes:
        start, clock: offset, and the input's clock before it.
        progress: see `PartitionState`; of what is released, with the predictions only.
        sources: see `PartitionState`; with the predictions only.
    """

    start: int
    clock: int = NEVER
    progress: Progress = Progress()
    sources: Mapping[int, int] = {}

    def to_metadata(self) -> str:
        sources = [[partition, offset] for partition, offset in sorted(self.sources.items())]
        progress = self.progress.to_json(self.sources)
        return json.dumps([self.start, self.clock, progress, sources], separators=(",", ":"))

    @classmethod
    def of(cls, committed: Committed) -> Facts:
        """What an earlier owner left; of a partition that none has had, its beginning."""
        if not committed.metadata:
            return cls(committed.offset)
        start, clock, progress, sources = json.loads(committed.metadata)
        sources = dict(sources)
        return cls(start, clock, Progress.of_json(progress, sources), sources)
