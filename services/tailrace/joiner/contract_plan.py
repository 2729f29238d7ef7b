"""What the joiner works out once for each revision of a contract: schemas, and the rules of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from tailrace.avro.codec import HEADER, MAGIC, Codec
from tailrace.avro.columns.decoder import ColumnDecoder
from tailrace.avro.registry import Registry
from tailrace.contracts.records.json_input import JsonInput
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import (
    action_schema,
    label_schema,
    namespace,
    outcome_schema,
    prediction_schema,
    subject,
)
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.joiner.label_value import encode_label
from tailrace.joiner.match import ACTION, LABEL, LabelRules


class FeedbackFormat(NamedTuple):
    """How labels, or actions, are written: the Avro schema, and what reads Avro and JSON."""

    schema: dict[str, Any]
    decoder: ColumnDecoder
    json_input: JsonInput


class JoiningPlan:
    """One revision of a model's contract."""

    def __init__(self, applied: AppliedContract, codec: Codec, registry: Registry) -> None:
        self.applied = applied
        self.contract = applied.contract
        self.model = applied.model
        self.namespace = namespace(applied.model)
        self.lane = Lane(self.contract.lane)
        self._codec = codec
        self._registry = registry

    @cached_property
    def rules(self) -> LabelRules:
        labels, lateness = self.contract.labels, self.contract.event_time.lateness_ms
        assume = None if labels.never is None else encode_label(self.contract.target, labels.never.assume)
        known_only_for = frozenset(labels.known_only_for)
        return LabelRules(labels.horizon_ms, lateness, assume, known_only_for, labels.tolerance_ms)

    @cached_property
    def formats(self) -> Mapping[int, FeedbackFormat]:
        """By kind: LABEL, ACTION."""
        labels, actions = label_schema(self.contract), action_schema(self.contract)
        return {
            LABEL: FeedbackFormat(labels, ColumnDecoder(labels), JsonInput(self.contract, "labels")),
            ACTION: FeedbackFormat(actions, ColumnDecoder(actions), JsonInput(self.contract, "actions")),
        }

    @cached_property
    def prediction_schema(self) -> dict[str, Any]:
        return prediction_schema(self.contract)

    @cached_property
    def prediction_schema_id(self) -> int:
        """Raises `Unavailable` while the registry is away."""
        return self._register(self.lane.predictions, self.prediction_schema)

    @cached_property
    def outcome_header(self) -> bytes:
        """Of the wire format. Raises `Unavailable` while the registry is away."""
        return HEADER.pack(MAGIC, self._register(self.lane.outcomes, outcome_schema(self.contract)))

    def _register(self, topic: str, schema: dict[str, Any]) -> int:
        return self._registry.register(subject(topic, self.model, self.lane.name), schema)

    def is_own(self, schema_id: int) -> bool:
        """Whether predictions written with this schema can be nested in an outcome as they are."""
        return self._codec.copies(schema_id, self.prediction_schema)
