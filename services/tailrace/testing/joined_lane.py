"""A lane in memory as the joiner finds it: predictions as two scorers write them, labels and actions as anyone may."""

from __future__ import annotations

from typing import Any

from tailrace.avro.codec import Codec
from tailrace.avro.registry import Registry
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import outcome_schema
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import Message, Record, RecordRef
from tailrace.testing.control_records import contract_record, prediction_event, schema_ids
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control

CONTRACT = """
model: credit
owner: {team: t}
key: {name: loan_id, type: string}
event_time: {name: at, lateness: 5s, skew: 5min}
features: {x: {type: number}}
target: {name: bad, type: boolean}
labels: {horizon: 60s}
drift: {window: 60s}
quality: {window: 60s}
"""


class JoinedLane:
    def __init__(self, text: str = CONTRACT, registry: Registry | None = None) -> None:
        self.registry = registry or MemoryRegistry()
        self.contract: ModelContract = load_contract(text)
        self.lane = Lane(self.contract.lane)
        self.codec, self.control = Codec(self.registry), Control(self.registry)
        self.schema_ids = schema_ids(self.registry, self.contract)
        self.outcome_schema = outcome_schema(self.contract)

    def contract_record(self, follows: int = 0) -> Record:
        record = contract_record(self.contract, follows)
        return self.control.record("Contract", record, self.contract.model.encode())

    def prediction(
        self,
        source: RecordRef,
        request_id: str,
        key: str,
        time: int,
        *,
        version: int = 1,
        shadow: bool = False,
        **changed: Any,
    ) -> Record:
        role = "shadow" if shadow else "champion"
        topic = self.lane.shadow_predictions if shadow else self.lane.predictions
        event = {
            "prediction_id": prediction_id(role, source, version),
            "request_id": request_id,
            "key": key,
            "event_time": time,
            "version": version,
            "role": role,
            "request": {"request_id": request_id, "loan_id": key, "x": 1.0},
            "score": version / 16,
            "predicted_class": "false",
            "action": "false",
        } | changed
        event = prediction_event(self.contract, source, **event)
        return Record(topic, self.codec.encode(self.schema_ids[topic], event), key.encode())

    def label(self, partition: int | None = None, **fields: Any) -> Record:
        return self._feedback(self.lane.labels, partition, fields)

    def action(self, partition: int | None = None, **fields: Any) -> Record:
        return self._feedback(self.lane.actions, partition, fields)

    def _feedback(self, topic: str, partition: int | None, fields: dict[str, Any]) -> Record:
        return Record(topic, self.codec.encode(self.schema_ids[topic], fields), None, partition=partition)

    def outcome(self, message: Message | Record) -> dict[str, Any]:
        """Read by the reference, with the contract's own schema."""
        value = message.value if isinstance(message, Record) else message.value()
        return self.codec.decode(value, self.outcome_schema).record
