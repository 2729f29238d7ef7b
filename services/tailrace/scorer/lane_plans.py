"""The contracts in force, by the topic on which their requests come; and what those of one topic bear together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tailrace.avro.codec import Codec
from tailrace.avro.registry import Registry
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.scorer.contract_plan import ServingPlan
from tailrace.scorer.dead_letter_share import DeadLetterLevel, level_of
from tailrace.scorer.versions import Role
from tailrace.scorer.watermarks import step_ms

_REQUESTS = ".requests"


class LanePlans:
    """Topics are those of requests.

    Attributes:
        by_topic: of each topic the contracts of the models that share it.
        levels: the share of dead letters that a topic bears, where one is said.
        changes: how many contracts were taken.
    """

    def __init__(self, role: Role, codec: Codec, registry: Registry) -> None:
        self._role = role
        self._codec = codec
        self._registry = registry
        self._plans: dict[str, ServingPlan] = {}
        self.by_topic: Mapping[str, Sequence[ServingPlan]] = {}
        self.levels: Mapping[str, DeadLetterLevel] = {}
        self.changes = 0

    def take(self, applied: AppliedContract) -> None:
        """Takes a contract that has come into force."""
        topic = Lane(applied.contract.lane).requests
        plan = ServingPlan(applied, self.predictions(topic), self._codec, self._registry)
        self._plans[applied.model] = plan
        by_topic: dict[str, list[ServingPlan]] = {}
        for _, plan in sorted(self._plans.items()):
            by_topic.setdefault(plan.lane.requests, []).append(plan)
        levels = {topic: level_of(plan.contract for plan in plans) for topic, plans in by_topic.items()}
        self.by_topic = by_topic
        self.levels = {topic: level for topic, level in levels.items() if level is not None}
        self.changes += 1

    def of(self, topics: Collection[str]) -> list[ServingPlan]:
        """The contracts of some topics."""
        return [plan for topic in topics for plan in self.by_topic.get(topic, ())]

    def predictions(self, topic: str) -> str:
        """Where answers go."""
        lane = _lane(topic)
        return lane.predictions if self._role == "champion" else lane.shadow_predictions

    def dead_letters(self, topic: str) -> str:
        return _lane(topic).dead_letters

    def step_ms(self, topic: str) -> int:
        """How far time comes between two marks."""
        return min(step_ms(plan.contract) for plan in self.by_topic[topic])

    def ahead_ms(self, topic: str) -> int:
        """How far ahead of its append time a mark may be."""
        return max(plan.contract.event_time.ahead_ms for plan in self.by_topic[topic])


def _lane(topic: str) -> Lane:
    return Lane(topic.removesuffix(_REQUESTS))
