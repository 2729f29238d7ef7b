"""Which partitions have to wait, each from its first request that cannot be answered now, and what for."""

from __future__ import annotations

from tailrace.models.rollout_state.fold import Rollouts
from tailrace.scorer.batch import Batch
from tailrace.scorer.plans import ServingPlan
from tailrace.scorer.serving.handover import Handovers
from tailrace.scorer.serving.quarantine import InFlight
from tailrace.scorer.versions import Role, Versions
from tailrace.streaming.records import PausedPartition, TopicPartition


class PausedPartitions:
    """Finds out what waits, and remembers it for whoever asks why."""

    def __init__(
        self, role: Role, rollouts: Rollouts, versions: Versions, handovers: Handovers, in_flight: InFlight
    ) -> None:
        self._role = role
        self._rollouts = rollouts
        self._versions = versions
        self._handovers = handovers
        self._in_flight = in_flight
        self._waiting: dict[TopicPartition, str] = {}

    def reasons(self) -> set[str]:
        """What is waited for, as of the last batch of each partition."""
        return set(self._waiting.values())

    def forget(self, partition: TopicPartition) -> None:
        self._waiting.pop(partition, None)

    def of(self, batch: Batch) -> dict[TopicPartition, PausedPartition]:
        """The partitions of the batch that wait."""
        paused = self._find(batch)
        if paused or self._waiting:
            for partition in batch.places:
                self._waiting.pop(partition, None)
            self._waiting.update({partition: pause.reason for partition, pause in paused.items()})
        return paused

    def _find(self, batch: Batch) -> dict[TopicPartition, PausedPartition]:
        paused: dict[TopicPartition, PausedPartition] = {}

        def pause(at: int, why: str) -> None:
            partition, offset = batch.partition(at), batch.offsets[at]
            if partition not in paused or offset < paused[partition].offset:
                paused[partition] = PausedPartition(offset, why)

        for partition, rows in batch.places.items() if self._handovers else ():
            why = self._handovers.why_not(partition)
            if why is not None:
                pause(rows[0], why)
        for requests in batch.requests:
            why = self._why_not(requests.plan)
            if why is not None:
                for at in requests.at.tolist():
                    pause(at, why)
        return paused

    def _why_not(self, plan: ServingPlan) -> str | None:
        """Why requests to a model have to wait; None where they can be answered."""
        serving = self._versions.serving(plan.model)
        if self._role == "shadow":
            named = self._rollouts.state(plan.model).shadow
            return f"the shadows of {plan.model} are being opened" if serving is None and named else None
        if serving is not None and serving.off is not None:
            return None
        if serving is None or not serving.versions:
            return self._versions.why_not(plan.model)
        champion = serving.versions[0]
        if self._in_flight.is_left_out(plan, champion) and self._versions.previous_is_coming(plan.model):
            return f"version {champion.number} of {plan.model} is quarantined, and the one before it is being opened"
        return plan.misfit(champion)
