"""How often processes have died on the records at a committed offset, kept in that offset's metadata.

A record that kills every process that takes it up would stop its partition for good. So the first batch that a process
takes from a partition is announced in the metadata of the partition's committed offset, and the batch's own commit
takes the announcement back; whoever owns the partition next can count, and goes there first. After ``ALONE_AFTER``
deaths at one offset the records of the batch are taken one by one, each announced; one that has killed
``ALONE_DEATHS`` processes alone is the poison record.

Where the processor names what is in flight (see `processor.NamesInFlight`), that is announced too, and the first batch
with something new in flight. What was in flight at ``SUSPECT_AFTER`` deaths is suspected before any record is: the
records that they died on are worked off without it. If a process dies nevertheless, it was not that.

The announcement is put in front of the facts that the processor keeps in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

ALONE_AFTER = 3
ALONE_DEATHS = 2
SUSPECT_AFTER = 2

MAX_NAMES = 4
"""How many names are announced, at most: each may cost a death before a record is suspected."""

MAX_FACTS_BYTES = 3600
"""What a processor may keep in the metadata, at most: there has to be room for the announcement."""

_FRAME = "\x1f"
_ACQUITTED = -1
_NOTHING: Mapping[str, int] = MappingProxyType({})


class CrashHistory(NamedTuple):
    """``deaths`` of processes with the partition at this offset; the batch that they died on ended at ``until``.

    ``in_flight`` says at how many of them each name was in flight, most suspicious first; negative where a process
    has died though it was left out.
    """

    deaths: int
    until: int
    in_flight: Mapping[str, int] = _NOTHING

    @property
    def suspect(self) -> str | None:
        """What the records up to ``until`` are to be worked off without."""
        return next((name for name, deaths in self.in_flight.items() if deaths >= SUSPECT_AFTER), None)

    @property
    def alone(self) -> bool:
        """Whether the records up to ``until`` are to be taken one by one."""
        return self.deaths >= ALONE_AFTER and self.suspect is None

    @property
    def has_poison_record(self) -> bool:
        """Whether the next record is known to kill."""
        return self.deaths >= ALONE_AFTER + ALONE_DEATHS and self.suspect is None

    def announced(self, until: int, in_flight: Sequence[str]) -> CrashHistory:
        """What the next owner finds if this process dies on the records up to ``until``."""
        suspect = self.suspect
        counts = {name: self.in_flight.get(name, 0) + 1 for name in in_flight[:MAX_NAMES]}
        cleared = {name for name, deaths in self.in_flight.items() if deaths < 0} | {suspect}
        counts |= {name: _ACQUITTED for name in self.in_flight if name in cleared}
        history = CrashHistory(self.deaths, max(self.until, until), counts)
        # A death that only moves the suspicion from one name to the next says nothing about a record.
        return history if suspect and history.suspect else history._replace(deaths=self.deaths + 1)

    def after(self, offset: int) -> CrashHistory:
        """What is left of it once everything before ``offset`` is committed."""
        if offset > self.until:
            return NO_DEATHS
        if self.suspect is not None:
            return self
        if self.alone:
            cleared = {name: deaths for name, deaths in self.in_flight.items() if deaths < 0}
            return CrashHistory(ALONE_AFTER, self.until, cleared)
        return NO_DEATHS


NO_DEATHS = CrashHistory(0, -1)


def pack(history: CrashHistory, metadata: str) -> str:
    """The metadata to commit."""
    if history == NO_DEATHS:
        return metadata
    names = f" {json.dumps(dict(history.in_flight), separators=(',', ':'))}" if history.in_flight else ""
    return f"{_FRAME}{history.deaths} {history.until}{names}{_FRAME}{metadata}"


def unpack(committed: str) -> tuple[CrashHistory, str]:
    """The crash history, and the processor's own part of the metadata."""
    if not committed.startswith(_FRAME):
        return NO_DEATHS, committed
    _, history, metadata = committed.split(_FRAME, 2)
    deaths, until, *names = history.split(" ", 2)
    return CrashHistory(int(deaths), int(until), json.loads(names[0]) if names else _NOTHING), metadata
