"""Versions that are not to be run, because processes died with them: suspected ones for as long as the records are
worked off that the processes died on, and those that it was in the end.

A quarantine is lifted when the version is put in its place anew: by a later promotion, or by ``off`` and ``on``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from tailrace.models.rollout_state.fold import Rollouts, RolloutState
from tailrace.scorer.versions import Role
from tailrace.streaming.processor import Suspect
from tailrace.streaming.records import TopicPartition


class Quarantined(NamedTuple):
    """A version, and the revision under which processes died with it."""

    model: str
    version: int
    revision: int

    @property
    def name(self) -> str:
        return name_of(self.model, self.version)


def name_of(model: str, version: int) -> str:
    """What a version is called where it is in flight."""
    return f"{model}/{version}"


class VersionQuarantine:
    """Which versions are not to be run by this instance."""

    def __init__(self, role: Role, rollouts: Rollouts) -> None:
        self._role = role
        self._rollouts = rollouts
        self._held: dict[str, Quarantined] = {}
        self._suspects: Mapping[TopicPartition, Suspect] = {}

    def suspect(self, suspects: Mapping[TopicPartition, Suspect]) -> None:
        """Who is suspected from now on."""
        self._suspects = suspects

    def add(self, found: Iterable[Quarantined]) -> None:
        """Takes what was found out, here or by the last owner of a partition."""
        for each in found:
            known = self._held.get(each.name)
            if known is None or known.revision < each.revision:
                self._held[each.name] = each

    def __contains__(self, name: str) -> bool:
        return self.holds(name) or any(suspect.name == name for suspect in self._suspects.values())

    def __bool__(self) -> bool:
        return bool(self._held or self._suspects)

    def holds(self, name: str) -> bool:
        """Whether it was that version, as far as is known."""
        found = self._held.get(name)
        if found is None:
            return False
        states = self._rollouts.states(found.model)[found.revision - 1 :]
        places = [_place(self._role, found.version, state) for state in states]
        if any(now is not None and now != before for before, now in pairwise(places)):
            del self._held[name]
            return False
        return True

    def to_blame(self, upto: Mapping[TopicPartition, int]) -> set[str]:
        """The suspects without which all is committed that processes died on, once these partitions are committed
        up to, not including, these offsets; those that are held already left out.
        """
        found = {s.name for tp, s in self._suspects.items() if upto.get(tp, 0) > s.until}
        return {name for name in found if not self.holds(name)}

    def all(self) -> list[Quarantined]:
        """What the next owner of a partition has to know."""
        return [self._held[name] for name in sorted(self._held) if self.holds(name)]


def _place(role: Role, version: int, state: RolloutState) -> str | None:
    """Where the version is run for this role."""
    if role == "shadow":
        return "shadow" if version in state.shadow else None
    if state.off:
        return None
    if version == state.champion:
        return "champion"
    if state.experiment is not None and version in state.experiment.versions:
        return "arm"
    return "canary" if state.canary is not None and version == state.canary.version else None
