"""Versions that are not to be run, because processes died with them: suspected ones for as long as the records are
worked off that the processes died on, and those that it was in the end. And who may answer in a version's place.

A quarantine is lifted when the version is put in its place anew: by a later promotion, or by ``off`` and ``on``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tailrace.models.catalog import Catalog
from tailrace.models.rollout_state.fold import Rollouts, RolloutState
from tailrace.scorer.batch import Batch
from tailrace.scorer.plans import LanePlans, ServingPlan
from tailrace.scorer.versions import Role, Serving, ServingVersion, Versions
from tailrace.streaming.processor import Suspect
from tailrace.streaming.records import PausedPartition, TopicPartition


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
        self._quarantined: dict[str, Quarantined] = {}
        self._suspects: Mapping[TopicPartition, Suspect] = {}

    def suspect(self, suspects: Mapping[TopicPartition, Suspect]) -> None:
        """Who is suspected from now on."""
        self._suspects = suspects

    def add(self, quarantined: Iterable[Quarantined]) -> None:
        """Takes what was found out, here or by the last owner of a partition."""
        for each in quarantined:
            known = self._quarantined.get(each.name)
            if known is None or known.revision < each.revision:
                self._quarantined[each.name] = each

    def __contains__(self, name: str) -> bool:
        return self.holds(name) or any(suspect.name == name for suspect in self._suspects.values())

    def __bool__(self) -> bool:
        return bool(self._quarantined or self._suspects)

    def holds(self, name: str) -> bool:
        """Whether it was that version, as far as is known."""
        quarantined = self._quarantined.get(name)
        if quarantined is None:
            return False
        states = self._rollouts.states(quarantined.model)[quarantined.revision - 1 :]
        places = [_place(self._role, quarantined.version, state) for state in states]
        if any(now is not None and now != before for before, now in pairwise(places)):
            del self._quarantined[name]
            return False
        return True

    def to_blame(self, upto: Mapping[TopicPartition, int]) -> set[str]:
        """The suspects without which all is committed that processes died on, once these partitions are committed
        up to, not including, these offsets; those that are quarantined already left out.
        """
        names = {s.name for tp, s in self._suspects.items() if upto.get(tp, 0) > s.until}
        return {name for name in names if not self.holds(name)}

    def all(self) -> list[Quarantined]:
        """What the next owner of a partition has to know."""
        return [self._quarantined[name] for name in sorted(self._quarantined) if self.holds(name)]


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


class _Named(NamedTuple):
    """The versions in flight, by name, what is answered without which others; ``key`` is what it follows from."""

    key: object
    in_flight: list[str]
    without: set[str]


class InFlight:
    """The versions that a batch runs, by name, those that it is worked off without, and who may stand in for them."""

    def __init__(
        self,
        role: Role,
        plans: LanePlans,
        versions: Versions,
        catalog: Catalog,
        quarantine: VersionQuarantine,
    ) -> None:
        self._plans = plans
        self._versions = versions
        self._catalog = catalog
        self._quarantine = quarantine
        self._role = role
        self._named = _Named(None, [], set())

    def name(self, topics: Collection[str], suspects: Mapping[TopicPartition, Suspect]) -> Sequence[str]:
        """The versions that may run for requests of these topics and that can be done without, until it is called
        again; what was published last comes first.
        """
        self._quarantine.suspect(suspects)
        key = (topics, self._versions.changes, self._plans.changes)
        if self._named.key != key or self._quarantine or self._named.without:
            self._named = _Named(key, *self._find(topics))
        return self._named.in_flight

    def _find(self, topics: Collection[str]) -> tuple[list[str], set[str]]:
        in_flight, without = [], set()
        for plan in {plan.model: plan for plan in self._plans.of(topics)}.values():
            serving = self._versions.serving(plan.model)
            if serving is None:
                continue
            for version in serving.versions:
                if not self._can_do_without(version, serving, plan):
                    continue
                name = name_of(plan.model, version.number)
                if name in self._quarantine:
                    without.add(name)
                else:
                    record = self._catalog.record(plan.model, version.number)
                    in_flight.append((-record["published_at"] if record else 0, -version.number, name))
        return [name for *_, name in sorted(in_flight)], without

    def instead_of(
        self, version: ServingVersion, serving: Serving, plan: ServingPlan
    ) -> ServingVersion | None:
        """Which version a fallback may ask: beside a champion the previous one, beside another version the champion."""
        champion = serving.versions[0]
        other = self._versions.previous(plan.model) if version is champion else champion
        if other is None or name_of(plan.model, other.number) in self._quarantine:
            return None
        return other if plan.misfit(other) is None else None

    def _can_do_without(self, version: ServingVersion, serving: Serving, plan: ServingPlan) -> bool:
        """Whether something else answers, or in shadow nothing need to."""
        if self._role == "shadow" or plan.has_fallback:
            return True
        if version is serving.versions[0] and self._versions.previous_is_coming(plan.model):
            return True
        return self.instead_of(version, serving, plan) is not None

    def is_left_out(self, plan: ServingPlan, version: ServingVersion) -> bool:
        """Whether the batch is worked off without the version."""
        without = self._named.without
        return bool(without) and name_of(plan.model, version.number) in without

    def to_blame(self, batch: Batch, paused: Mapping[TopicPartition, PausedPartition]) -> list[Quarantined]:
        """The versions that processes died with, as this batch shows: it is the last of the records that they died
        on, and worked off without them.
        """
        if not self._named.without:
            return []
        upto = {partition: batch.offsets[rows[-1]] + 1 for partition, rows in batch.places.items()}
        upto |= {partition: pause.offset for partition, pause in paused.items()}
        names = sorted(self._quarantine.to_blame(upto) & self._named.without)
        versions = [(model, int(number)) for model, _, number in (name.rpartition("/") for name in names)]
        return [Quarantined(*version, self._versions.revision(version[0])) for version in versions]
