"""The fold of ``tailrace.clocks``: who tells each lane the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

Owner = Literal["wall", "replay"]
WALL: Owner = "wall"
REPLAY: Owner = "replay"


class LaneClock(NamedTuple):
    """Who tells a lane the time: the clock service in wall time, or whoever replays history in event time.

    ``at`` is since when, by that clock, in milliseconds.
    """

    owner: Owner
    by: str
    at: int


class LaneClocks:
    """Folds the records of ``tailrace.clocks``: of each lane the last one counts.

    Attributes:
        current: by lane. A lane that is not in it has no clock: nobody marks its silence.
    """

    def __init__(self) -> None:
        self.current: dict[str, LaneClock] = {}

    def apply(self, record: Mapping[str, Any]) -> None:
        """Takes one decoded record (schema ``clock.avsc``)."""
        if record["owner"] in (WALL, REPLAY):
            found = LaneClock(cast(Owner, record["owner"]), record["by"], record["at"])
            self.current[record["lane"]] = found

    def is_replayed(self, lane: str) -> bool:
        """Whether the lane's time is that of a replay, so that a request has to say its own."""
        clock = self.current.get(lane)
        return clock is not None and clock.owner == REPLAY


def record_of(lane: str, clock: LaneClock) -> dict[str, Any]:
    """The record (schema ``clock.avsc``) that says so."""
    return {"lane": lane, "owner": clock.owner, "by": clock.by, "at": clock.at}
