"""The versions that may kill the process and can be done without; and those that are left out since processes died."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tailrace.models.catalog import Catalog
from tailrace.scorer.batch import Batch
from tailrace.scorer.contract_plan import ServingPlan
from tailrace.scorer.lane_plans import LanePlans
from tailrace.scorer.quarantine import Quarantined, VersionQuarantine, name_of
from tailrace.scorer.stand_in import StandIns
from tailrace.scorer.versions import ServingVersion, Versions
from tailrace.streaming.processor import Suspect
from tailrace.streaming.records import PausedPartition, TopicPartition


class _Named(NamedTuple):
    """The versions in flight, by name, what is answered without which others; ``key`` is what it follows from."""

    key: object
    in_flight: list[str]
    without: set[str]


class InFlight:
    """The versions that a batch runs, by name, and those that it is worked off without."""

    def __init__(
        self,
        plans: LanePlans,
        versions: Versions,
        catalog: Catalog,
        quarantine: VersionQuarantine,
        stand_ins: StandIns,
    ) -> None:
        self._plans = plans
        self._versions = versions
        self._catalog = catalog
        self._quarantine = quarantine
        self._stand_ins = stand_ins
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
        found, without = [], set()
        for plan in {plan.model: plan for plan in self._plans.of(topics)}.values():
            serving = self._versions.serving(plan.model)
            if serving is None:
                continue
            for version in serving.versions:
                if not self._stand_ins.can_do_without(version, serving, plan):
                    continue
                name = name_of(plan.model, version.number)
                if name in self._quarantine:
                    without.add(name)
                else:
                    record = self._catalog.record(plan.model, version.number)
                    found.append((-record["published_at"] if record else 0, -version.number, name))
        return [name for *_, name in sorted(found)], without

    def is_left_out(self, plan: ServingPlan, version: ServingVersion) -> bool:
        """Whether the batch is worked off without the version."""
        without = self._named.without
        return bool(without) and name_of(plan.model, version.number) in without

    def to_blame(self, work: Batch, holds: Mapping[TopicPartition, PausedPartition]) -> list[Quarantined]:
        """The versions that processes died with, as this batch shows: it is the last of the records that they died
        on, and worked off without them.
        """
        if not self._named.without:
            return []
        upto = {partition: work.offsets[rows[-1]] + 1 for partition, rows in work.places.items()}
        upto |= {partition: hold.offset for partition, hold in holds.items()}
        found = []
        for name in sorted(self._quarantine.to_blame(upto) & self._named.without):
            model, _, number = name.rpartition("/")
            found.append(Quarantined(model, int(number), self._versions.revision(model)))
        return found
