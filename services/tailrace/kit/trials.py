"""How often processes have died on the records at a committed offset, kept in that offset's metadata.

A record that kills every process that takes it up would stop its partition for good. So the first batch
that a process takes from a partition is announced in the metadata of the partition's committed offset, and
the batch's own commit takes the announcement back; whoever owns the partition next can count. After
``ALONE_AFTER`` deaths at one offset the records of the batch are taken one by one, each announced; one that
has killed ``ALONE_DEATHS`` processes alone is the culprit.

The announcement is put in front of the facts that the service's logic keeps in the metadata.
"""

from __future__ import annotations

from typing import NamedTuple

ALONE_AFTER = 3
ALONE_DEATHS = 2

MAX_FACTS_BYTES = 4000
"""What a logic may keep in the metadata, at most: there has to be room for the announcement."""

_FRAME = "\x1f"


class Trial(NamedTuple):
    """``deaths`` of processes with the partition at this offset; the batch that they died on ended at
    ``until``.
    """

    deaths: int
    until: int

    @property
    def alone(self) -> bool:
        """Whether the records up to ``until`` are to be taken one by one."""
        return self.deaths >= ALONE_AFTER

    @property
    def culprit(self) -> bool:
        """Whether the next record is known to kill."""
        return self.deaths >= ALONE_AFTER + ALONE_DEATHS


NO_TRIAL = Trial(0, -1)


def pack(trial: Trial, metadata: str) -> str:
    """The metadata to commit."""
    if trial == NO_TRIAL:
        return metadata
    return f"{_FRAME}{trial.deaths} {trial.until}{_FRAME}{metadata}"


def unpack(committed: str) -> tuple[Trial, str]:
    """The trial, and the logic's own part of the metadata."""
    if not committed.startswith(_FRAME):
        return NO_TRIAL, committed
    deaths, until = committed[1:].split(_FRAME, 1)[0].split(" ")
    return Trial(int(deaths), int(until)), committed.split(_FRAME, 2)[2]
