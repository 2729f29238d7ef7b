"""The fold of ``tailrace.clocks``: who gives each lane its watermark records."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

from tailrace.contracts.records.lanes import CLOCKS
from tailrace.contracts.records.record_types import ClockRecord

Owner = Literal["wall", "replay"]
WALL: Owner = "wall"
REPLAY: Owner = "replay"


class LaneClock(NamedTuple):
    """Who gives a lane its watermark records: the clock service in wall time, or whoever replays history in event time.

    ``at`` is since when, by that clock, in milliseconds.
    """

    owner: Owner
    by: str
    at: int
    revision: int = 1


class LaneClocks:
    """Folds the records of ``tailrace.clocks``: of several that follow the same revision of a lane the first counts.

    Attributes:
        current: by lane. A lane that is not in it has no clock: no watermark record comes into its silence.
    """

    topic = CLOCKS

    def __init__(self) -> None:
        self.current: dict[str, LaneClock] = {}

    def revision(self, lane: str) -> int:
        """The revision in force; 0 where the lane has no clock."""
        clock = self.current.get(lane)
        return clock.revision if clock else 0

    def apply(self, record: ClockRecord, offset: int = 0) -> bool:
        """Takes one decoded record (schema ``clock.avsc``); says whether it came into force."""
        lane, revision = record["lane"], self.revision(record["lane"])
        if record["follows"] != revision or record["revision"] != revision + 1:
            return False
        owner = cast(Owner, record["owner"])
        self.current[lane] = LaneClock(owner, record["by"], record["at"], record["revision"])
        return True

    def is_replayed(self, lane: str) -> bool:
        """Whether the lane's time is that of a replay, so that a request has to say its own."""
        clock = self.current.get(lane)
        return clock is not None and clock.owner == REPLAY


def record_of(lane: str, clock: LaneClock) -> ClockRecord:
    """The record (schema ``clock.avsc``) that says so."""
    return {
        "lane": lane,
        "revision": clock.revision,
        "follows": clock.revision - 1,
        "owner": clock.owner,
        "by": clock.by,
        "at": clock.at,
    }
