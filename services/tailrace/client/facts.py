"""What an application must know of a model, from the contracts topic; without pydantic."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.record_types import ContractRecord


@dataclass(frozen=True)
class ModelFacts:
    """The part of a contract in force that shapes the records of its lane.

    Attributes:
        key: the field that keys every record of the lane.
        key_type: ``string`` or ``integer``.
        event_time: name of the event-time field.
        fields: features and context, in the contract's order.
        target: name of the target field.
        target_type: ``boolean``, ``category`` or ``number``.
    """

    model: str
    lane: Lane
    key: str
    key_type: str
    event_time: str
    fields: tuple[str, ...]
    target: str
    target_type: str
    digest: str

    @classmethod
    def from_resolved(cls, resolved: Mapping[str, Any], digest: str = "") -> ModelFacts:
        target = resolved["target"]
        return cls(
            model=resolved["model"],
            lane=Lane(resolved["lane"]),
            key=resolved["key"]["name"],
            key_type=resolved["key"]["type"],
            event_time=resolved["event_time"]["name"],
            fields=(*resolved["features"], *(resolved.get("context") or {})),
            target=target["name"],
            target_type=target.get("type") or "category",
            digest=digest,
        )


def contracts_in_force(records: Iterable[ContractRecord]) -> dict[str, ModelFacts]:
    """Folds contract records, in the order of the topic: the first that follows the current revision wins."""
    current: dict[str, ContractRecord] = {}
    for record in records:
        before = current.get(record["model"])
        if record["follows"] == (before["revision"] if before else 0):
            current[record["model"]] = record
    return {
        model: ModelFacts.from_resolved(json.loads(record["resolved"]), record["digest"])
        for model, record in current.items()
    }
