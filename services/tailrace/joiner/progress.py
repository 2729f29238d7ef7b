"""How far a partition has worked off what is due, to the single item.

Due work is done in one order, so that where it stands is a few numbers: they are committed with what was written, and
whoever owns the partition next writes what lies behind them and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

NEVER = -(1 << 62)
"""Before all times: the stream time of what has not been heard of."""
ALWAYS = 1 << 62

Order = tuple[int, int, int, int]
"""Of a label or action: effective time, kind, partition, offset; topics of a lane are in the order of their kinds."""
Spot = tuple[int, int]
"""A time at which a request is due, and the request's digest, since any number are due at one time."""
Wait = tuple[int, int, int]
"""When a shadow prediction no longer waits for the champion's answer; partition and offset of its request."""

_AT_THE_END = (ALWAYS, 0)


def digest(request: bytes) -> int:
    """Where a request comes among those of one time."""
    return int.from_bytes(blake2b(request, digest_size=7).digest(), "big")


@dataclass(slots=True)
class Progress:
    """Everything before these has been done.

    Attributes:
        applied: labels and actions have been applied.
        closed: predictions whose horizon is over have been closed.
        waited: shadow predictions have been given up waiting for the champion's answer.
        swept: the timers of what nothing can match any more have run.
        released: up to which request, including, by partition, shadow predictions know who answered.
    """

    applied: Order = (NEVER, 0, 0, 0)
    closed: Spot = (NEVER, 0)
    waited: Wait = (NEVER, 0, 0)
    swept: Spot = (NEVER, 0)
    released: dict[int, int] = field(default_factory=dict)

    @property
    def time(self) -> int:
        """Labels and actions that count from before have been applied, and horizons that end before are closed."""
        return min(self.applied[0], self.closed[0])

    def copy(self) -> Progress:
        return replace(self, released=dict(self.released))

    def covers(self, source: tuple[int, int], until: int) -> bool:
        """Whether it is known who answered the request at ``source``."""
        partition, offset = source
        return self.released.get(partition, -1) >= offset or (until, partition, offset) < self.waited

    def is_over(self, end: int, request: bytes) -> bool:
        """Whether a prediction of the request with this end of its horizon has been closed."""
        time, within = self.closed
        return end < time or (end == time and within > 0 and digest(request) < within)

    def is_before(self, other: Progress) -> bool:
        """Whether the other is as far or further in everything."""
        return (
            self.applied <= other.applied
            and self.closed <= other.closed
            and self.waited <= other.waited
            and self.swept <= other.swept
            and all(offset <= other.released.get(p, -1) for p, offset in self.released.items())
        )

    def to_json(self, sources: Mapping[int, int]) -> list[Any]:
        """Without what is as ``sources`` has it."""
        lagging = [
            [p, self.released.get(p, -1)] for p, o in sorted(sources.items()) if self.released.get(p, -1) != o
        ]
        return [[*self.applied], [*self.closed], [*self.waited], [*self.swept], lagging]

    @classmethod
    def of_json(cls, content: Any, sources: Mapping[int, int]) -> Progress:
        if isinstance(content, int):  # as it was written when every step did all that was due
            closed = content if content == NEVER else content + 1
            return cls((content, 0, 0, 0), (closed, 0), (ALWAYS, 0, 0), _AT_THE_END, dict(sources))
        applied, closed, waited, swept, lagging = content
        released = {**sources, **dict(lagging)}
        return cls(tuple(applied), tuple(closed), tuple(waited), tuple(swept), released)

    @property
    def is_exact(self) -> bool:
        return self.swept != _AT_THE_END

    @classmethod
    def furthest(cls, committed: Iterable[Progress]) -> Progress:
        """The last of what one partition has committed with its inputs."""
        known = list(committed)
        if any(each.is_exact and each.applied[0] != NEVER for each in known):
            known = [each for each in known if each.is_exact]
        last = cls()
        for each in known:
            last.applied, last.closed = max(last.applied, each.applied), max(last.closed, each.closed)
            last.waited, last.swept = max(last.waited, each.waited), max(last.swept, each.swept)
            for partition, offset in each.released.items():
                last.released[partition] = max(offset, last.released.get(partition, -1))
        return last
