"""Which partitions have to wait, each from its first request that cannot be answered now, and what for."""

from __future__ import annotations

from typing import NamedTuple

from tailrace.models.rollout_state.fold import Rollouts
from tailrace.scorer.batch import Batch
from tailrace.scorer.plans import LanePlans, ServingPlan
from tailrace.scorer.serving.handover import Handovers
from tailrace.scorer.serving.quarantine import InFlight
from tailrace.scorer.serving.waiting_requests import WaitingRequest
from tailrace.scorer.versions import Role, Versions
from tailrace.streaming.records import PausedPartition, TopicPartition


class Wait(NamedTuple):
    """Why requests to a model have to wait, and whether only a person can end it."""

    reason: str
    for_person: bool = False


class PausedPartitions:
    """Finds out what waits, and remembers it for whoever asks why."""

    def __init__(
        self,
        role: Role,
        plans: LanePlans,
        rollouts: Rollouts,
        versions: Versions,
        handovers: Handovers,
        in_flight: InFlight,
    ) -> None:
        self._role = role
        self._plans = plans
        self._rollouts = rollouts
        self._versions = versions
        self._handovers = handovers
        self._in_flight = in_flight
        self._waiting: dict[TopicPartition, str] = {}

    def by_model(self) -> dict[str, str | None]:
        """Of each model, why a partition of its lane waits, as of the last batch of each; None where none does. Models
        that share a lane wait for each other.
        """
        return {
            plan.model: min((why for tp, why in self._waiting.items() if tp.topic == topic), default=None)
            for topic, plans in self._plans.by_topic.items()
            for plan in plans
        }

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

    def for_person(self, batch: Batch) -> dict[str, WaitingRequest]:
        """By model, the first request of the batch that waits for a person. To be asked before the batch is cut."""
        waiting = {}
        for requests in batch.requests:
            plan, wait = requests.plan, self.wait_of(requests.plan)
            if wait is not None and wait.for_person:
                at = int(requests.at.min())
                cause = f"{plan.applied.digest}/{self._versions.revision(plan.model)}"
                waiting[plan.model] = WaitingRequest(wait.reason, cause, batch.source(at), batch.appended[at])
        return waiting

    def models_that_wait(self) -> set[str]:
        """For a person, whether a request has come or not."""
        plans = (plan for of_topic in self._plans.by_topic.values() for plan in of_topic)
        return {plan.model for plan in plans if (wait := self.wait_of(plan)) is not None and wait.for_person}

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
            wait = self.wait_of(requests.plan)
            if wait is not None:
                for at in requests.at.tolist():
                    pause(at, wait.reason)
        return paused

    def wait_of(self, plan: ServingPlan) -> Wait | None:
        """Why requests to a model have to wait; None where they can be answered."""
        model = plan.model
        serving = self._versions.serving(model)
        if self._role == "shadow":
            named = self._rollouts.state(model).shadow
            return Wait(f"the shadows of {model} are being opened") if serving is None and named else None
        if serving is not None and serving.off is not None:
            return None
        if serving is None or not serving.versions:
            return Wait(self._versions.why_not(model), self._versions.waits_for_person(model))
        champion = serving.versions[0]
        if self._in_flight.is_left_out(plan, champion) and self._versions.previous_is_coming(model):
            which = f"version {champion.number} of {model}"
            return Wait(f"{which} is quarantined, and the one before it is being opened")
        misfit = plan.misfit(champion)
        return None if misfit is None else Wait(misfit, not self._versions.is_coming(model))
