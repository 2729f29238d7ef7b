"""The contracts in force, ready to serve: of each its schemas and what is worked out from it once; of each topic of
requests the contracts whose models share it, and what they bear together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from tailrace.avro.codec import Codec
from tailrace.avro.columns.decoder import ColumnDecoder
from tailrace.avro.registry import Registry
from tailrace.contracts.language.durations import parse_share
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import match_alert
from tailrace.contracts.records.json_input import JsonInput
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import namespace, prediction_schema, request_schema, subject
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.models.errors import PackageRefused
from tailrace.models.package.open import check_schema
from tailrace.scorer.versions import Role, ServingVersion

Made = TypeVar("Made")

WATERMARK_STEPS = 24
"""In the shortest window."""

_REQUESTS = ".requests"


class ServingPlan:
    """One revision of a model's contract, ready to serve. ``topic`` is where its predictions go."""

    def __init__(self, applied: AppliedContract, topic: str, codec: Codec, registry: Registry) -> None:
        self.applied = applied
        self.contract = applied.contract
        self.topic = topic
        self.codec = codec
        self._registry = registry
        self._misfits: dict[str, str | None] = {}
        self._worked_out: dict[Any, Any] = {}

    @property
    def model(self) -> str:
        return self.applied.model

    @property
    def has_fallback(self) -> bool:
        """Whether the contract says anything about who answers in a version's place."""
        return bool(self.contract.guardrails.fallback)

    @property
    def watermark_step_ms(self) -> int:
        """How far time comes between two watermark records."""
        return max(1, min(self.contract.drift.window_ms, self.contract.quality.window_ms) // WATERMARK_STEPS)

    @cached_property
    def lane(self) -> Lane:
        return Lane(self.contract.lane)

    @cached_property
    def namespace(self) -> str:
        return namespace(self.model)

    @cached_property
    def request_schema(self) -> dict[str, Any]:
        return request_schema(self.contract)

    @cached_property
    def request_schema_id(self) -> int:
        """Raises `Unavailable` while the registry is away, as does ``prediction_schema_id``."""
        return self._register(self.lane.requests, self.request_schema)

    @cached_property
    def prediction_schema_id(self) -> int:
        return self._register(self.topic, prediction_schema(self.contract))

    @cached_property
    def decoder(self) -> ColumnDecoder:
        return ColumnDecoder(self.request_schema)

    @cached_property
    def json_input(self) -> JsonInput:
        return JsonInput(self.contract, "requests")

    def worked_out(self, make: Callable[[ModelContract], Made]) -> Made:
        """What ``make`` makes of the contract: made once, and kept as long as the revision is in force."""
        if make not in self._worked_out:
            self._worked_out[make] = make(self.contract)
        made: Made = self._worked_out[make]
        return made

    def misfit(self, version: ServingVersion) -> str | None:
        """Why a version cannot serve under this contract, which may be newer than the version."""
        digest = version.model.digest
        if digest not in self._misfits:
            self._misfits[digest] = None
            try:
                check_schema(version.model.manifest, self.contract)
            except PackageRefused as misfit:
                which = f"version {version.number} of {self.model}"
                self._misfits[digest] = f"{which} does not fit its contract any more: {misfit.reason}"
        return self._misfits[digest]

    def _register(self, topic: str, schema: dict[str, Any]) -> int:
        return self._registry.register(subject(topic, self.model, self.contract.lane), schema)


@dataclass(frozen=True)
class DeadLetterLevel:
    """The share of dead letters that a contract bears; of several on a lane the least."""

    most: float
    severity: str
    contract: ModelContract


def level_of(contracts: Iterable[ModelContract]) -> DeadLetterLevel | None:
    """What the contracts of a lane bear, by ``service_levels.answered`` and ``alerts.severe``; None where none says."""
    levels = []
    for contract in contracts:
        if contract.service_levels.answered is not None:
            levels.append(DeadLetterLevel(1 - contract.service_levels.answered, "warning", contract))
        for phrase in contract.alerts.severe:
            pattern, places = match_alert(phrase) or ("", {})
            if pattern.startswith("dead-letter share"):
                levels.append(DeadLetterLevel(parse_share(places["share"]), "severe", contract))
    return min(levels, key=lambda level: level.most, default=None)


class LanePlans:
    """Topics are those of requests.

    Attributes:
        by_topic: of each topic the contracts of the models that share it.
        levels: the share of dead letters that a topic bears, where contracts have one.
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
        return min(plan.watermark_step_ms for plan in self.by_topic[topic])

    def ahead_ms(self, topic: str) -> int:
        """How far ahead of its append time a watermark record may be."""
        return max(plan.contract.event_time.ahead_ms for plan in self.by_topic[topic])


def _lane(topic: str) -> Lane:
    return Lane(topic.removesuffix(_REQUESTS))
