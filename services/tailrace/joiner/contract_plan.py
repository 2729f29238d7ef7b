"""What the joiner works out once for each revision of a contract: schemas, and the rules of its labels."""

from __future__ import annotations

from functools import cached_property
from typing import Any

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
from tailrace.joiner.match import LabelRules


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
        labels = self.contract.labels
        assume = None if labels.never is None else encode_label(self.contract.target, labels.never.assume)
        return LabelRules(
            labels.horizon_ms,
            self.contract.event_time.lateness_ms,
            assume,
            frozenset(labels.known_only_for),
        )

    @cached_property
    def label_schema(self) -> dict[str, Any]:
        return label_schema(self.contract)

    @cached_property
    def action_schema(self) -> dict[str, Any]:
        return action_schema(self.contract)

    @cached_property
    def prediction_schema(self) -> dict[str, Any]:
        return prediction_schema(self.contract)

    @cached_property
    def label_decoder(self) -> ColumnDecoder:
        return ColumnDecoder(self.label_schema)

    @cached_property
    def action_decoder(self) -> ColumnDecoder:
        return ColumnDecoder(self.action_schema)

    @cached_property
    def label_json(self) -> JsonInput:
        return JsonInput(self.contract, "labels")

    @cached_property
    def action_json(self) -> JsonInput:
        return JsonInput(self.contract, "actions")

    @cached_property
    def prediction_schema_id(self) -> int:
        """Raises `Unavailable` while the registry is away."""
        schema = self.prediction_schema
        return self._registry.register(subject(self.lane.predictions, self.model, self.lane.name), schema)

    @cached_property
    def outcome_header(self) -> bytes:
        """Of the wire format. Raises `Unavailable` while the registry is away."""
        topic = self.lane.outcomes
        schema = outcome_schema(self.contract)
        return HEADER.pack(MAGIC, self._registry.register(subject(topic, self.model, self.lane.name), schema))

    def is_own(self, schema_id: int) -> bool:
        """Whether predictions written with this schema can be nested in an outcome as they are."""
        return self._codec.copies(schema_id, self.prediction_schema)
