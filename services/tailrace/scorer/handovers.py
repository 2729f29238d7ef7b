"""Which partitions wait until this instance has read as much as their last owner, and what it leaves in its turn: see
handover.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tailrace.contracts.state.contracts import Contracts
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.scorer.handover import Handover
from tailrace.scorer.lane_plans import LanePlans
from tailrace.scorer.quarantine import Quarantined, VersionQuarantine
from tailrace.scorer.versions import Versions
from tailrace.streaming.records import TopicPartition


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
        left = self._left[partition] = Handover.from_metadata(metadata)
        return left

    def forget(self, partition: TopicPartition) -> None:
        self._left.pop(partition, None)

    def why_not(self, partition: TopicPartition) -> str | None:
        """What the partition waits for; nothing from the first time on that there is nothing."""
        left = self._left.get(partition)
        if left is None:
            return None
        models = [plan.model for plan in self._plans.of([partition.topic])]
        why = left.waits_for(models, self.contracts_position, self._contracts, self._rollouts, self._versions)
        if why is None:
            del self._left[partition]
        return why

    def leave(self, partitions: Iterable[TopicPartition], quarantined: Sequence[Quarantined]) -> Handover:
        """What the next owner of these partitions is left: with one that still waits, also what it waits for.

        Args:
            quarantined: what was found out beyond what is known.
        """
        left = Handover(
            self.contracts_position,
            self._rollouts.position,
            self._versions.behind(),
            [*self._quarantine.all(), *quarantined],
        )
        for partition in partitions if self._left else ():
            if partition in self._left:
                left = left.joined(self._left[partition], self._rollouts)
        return left
