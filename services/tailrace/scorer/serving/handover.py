"""What the owner of a partition leaves to the next one, so that no answer is of an older revision than the last.

The facts are stored with the committed offset, where 4,095 bytes have room: how far the owner had folded
contracts and rollouts, and the few models that it did not serve under their newest revision (a package still
being opened, or refused), and the versions that it had quarantined. A partition waits until its new owner has as much.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tailrace.contracts.state.contracts import Contracts
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.scorer.plans import LanePlans
from tailrace.scorer.serving.quarantine import Quarantined, VersionQuarantine
from tailrace.scorer.versions import Versions
from tailrace.streaming.records import TopicPartition

LIMIT = 3500
_MOST_WAITS = 10


@dataclass(frozen=True)
class Handover:
    """Positions are offsets behind the last record folded; ``behind`` gives the revision served by model.

    ``count`` is what dead_letters.py has counted of the partition, ``waits`` what waiting_requests.py has open.
    """

    contracts: int = 0
    rollouts: int = 0
    behind: Mapping[str, int] = field(default_factory=dict)
    quarantined: Sequence[Quarantined] = ()
    count: Sequence[Any] = ()
    waits: Mapping[str, str] = field(default_factory=dict)

    def to_metadata(self) -> str:
        """Compact JSON. Models that find no room are left out, which makes the next owner wait for more, never less."""
        more: list[Any] = [[list(each) for each in self.quarantined], list(self.count), self._waits()]
        while more and not more[-1]:
            more.pop()
        room = LIMIT - len(json.dumps([1, self.contracts, self.rollouts, {}, *more]))
        behind = {}
        for model, revision in sorted(self.behind.items()):
            room -= len(json.dumps({model: revision}))
            if room < 0:
                break
            behind[model] = revision
        return json.dumps([1, self.contracts, self.rollouts, behind, *more], separators=(",", ":"))

    def _waits(self) -> dict[str, str]:
        """Of very many models only some: the alert of another that an owner leaves open stays open."""
        return dict(sorted(self.waits.items())[:_MOST_WAITS])

    @classmethod
    def from_metadata(cls, metadata: str) -> Handover:
        """What the last owner left; nothing at all where there was none.

        Raises:
            ValueError: this is not what a scorer writes.
        """
        if not metadata:
            return cls()
        match json.loads(metadata):
            case [1, int(contracts), int(rollouts), dict(served), *rest]:
                left: list[Any] = [*rest, *((), (), {})[len(rest) :]]
                versions, count, waits = left[:3]
                behind = {str(model): int(revision) for model, revision in served.items()}
                quarantined = tuple(Quarantined(*each) for each in versions)
                return cls(contracts, rollouts, behind, quarantined, count, dict(waits))
        raise ValueError(f"metadata of another program or version: {metadata[:200]!r}")

    def served(self, model: str, rollouts: Rollouts) -> int:
        """The revision of a model under which that owner may have answered; needs its rollouts to be folded."""
        return self.behind.get(model, rollouts.revision_at(model, self.rollouts))

    def joined(self, other: Handover, rollouts: Rollouts) -> Handover:
        """What demands as much as both do. Everything before the lesser position must be folded."""
        less, more = sorted((self, other), key=lambda handover: handover.rollouts)
        behind = {m: max(revision, less.served(m, rollouts)) for m, revision in more.behind.items()}
        return Handover(max(self.contracts, other.contracts), more.rollouts, behind, self.quarantined)

    def waits_for(
        self,
        models: Iterable[str],
        contracts_position: int,
        contracts: Contracts,
        rollouts: Rollouts,
        versions: Versions,
    ) -> str | None:
        """What is missing before these models may be answered after that owner; None if nothing."""
        if contracts_position < self.contracts:
            return "the contracts that the last owner had read"
        if rollouts.position < self.rollouts:
            return "the rollouts that the last owner had read"
        for model in models:
            if model not in contracts.current:
                continue
            served = self.served(model, rollouts)
            if versions.revision(model) < served:
                return (
                    f"revision {served} of {model}, under which it was served last; {versions.why_not(model)}"
                )
        return None


class Handovers:
    """What the last owners left, for as long as it is waited for.

    Attributes:
        contracts_position: offset behind the last contract that was read.
    """

    def __init__(
        self,
        plans: LanePlans,
        contracts: Contracts,
        rollouts: Rollouts,
        versions: Versions,
        quarantine: VersionQuarantine,
    ) -> None:
        self._plans = plans
        self._contracts = contracts
        self._rollouts = rollouts
        self._versions = versions
        self._quarantine = quarantine
        self._left: dict[TopicPartition, Handover] = {}
        self.contracts_position = 0

    def __bool__(self) -> bool:
        """Whether any partition may wait."""
        return bool(self._left)

    def take(self, partition: TopicPartition, metadata: str) -> Handover:
        """Takes over a partition. Raises ValueError: that is not what a scorer leaves."""
        handover = self._left[partition] = Handover.from_metadata(metadata)
        return handover

    def forget(self, partition: TopicPartition) -> None:
        self._left.pop(partition, None)

    def why_not(self, partition: TopicPartition) -> str | None:
        """What the partition waits for; nothing from the first time on that there is nothing."""
        handover = self._left.get(partition)
        if handover is None:
            return None
        models = [plan.model for plan in self._plans.of([partition.topic])]
        folds = self._contracts, self._rollouts, self._versions
        why = handover.waits_for(models, self.contracts_position, *folds)
        if why is None:
            del self._left[partition]
        return why

    def leave(self, partitions: Iterable[TopicPartition], quarantined: Sequence[Quarantined]) -> Handover:
        """What the next owner of these partitions is left: with one that still waits, also what it waits for.

        Args:
            quarantined: what was found out beyond what is known.
        """
        positions, behind = (self.contracts_position, self._rollouts.position), self._versions.behind()
        handover = Handover(*positions, behind, [*self._quarantine.all(), *quarantined])
        for partition in partitions if self._left else ():
            if partition in self._left:
                handover = handover.joined(self._left[partition], self._rollouts)
        return handover
