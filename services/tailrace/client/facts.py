"""What an application must know of a model, from the contracts topic; without pydantic."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tailrace.contracts.records.lanes import Lane


@dataclass(frozen=True)
class ModelFacts:
    """The part of a contract in force that shapes the records of its lane.

    Attributes:
        key: the field that keys every record of the lane.
        key_type: ``string`` or ``integer``.
        event_time: name of the event-time field.
        early_1970: events may be of the spring of 1970.
        fields: features and context with their types, in the contract's order.
        target: name of the target field.
        target_type: ``boolean``, ``category`` or ``number``.
        target_categories: none where it is not a category.
    """

    model: str
    lane: Lane
    key: str
    key_type: str
    event_time: str
    early_1970: bool
    fields: Mapping[str, str]
    target: str
    target_type: str
    target_categories: tuple[str, ...]
    digest: str

    @classmethod
    def from_resolved(cls, resolved: Mapping[str, Any], digest: str = "") -> ModelFacts:
        target, event_time = resolved["target"], resolved["event_time"]
        fields = {**resolved["features"], **(resolved.get("context") or {})}
        return cls(
            model=resolved["model"],
            lane=Lane(resolved["lane"]),
            key=resolved["key"]["name"],
            key_type=resolved["key"]["type"],
            event_time=event_time["name"],
            early_1970=event_time.get("early_1970", False),
            fields={name: field.get("type") or "category" for name, field in fields.items()},
            target=target["name"],
            target_type=target.get("type") or "category",
            target_categories=tuple(target.get("categories") or ()),
            digest=digest,
        )


def contracts_in_force(records: Iterable[Mapping[str, Any]]) -> dict[str, ModelFacts]:
    """Folds contract records, in the order of the topic: the first that follows the current revision wins. What is
    held until a version fits it makes no revision, and what cannot be a contract counts for nothing.
    """
    current: dict[str, ModelFacts] = {}
    revisions: dict[str, int] = {}
    for record in records:
        try:
            model, follows, revision = record["model"], record["follows"], record["revision"]
            if (follows, revision) != (revisions.get(model, 0), follows + 1):
                continue
            facts = ModelFacts.from_resolved(json.loads(record["resolved"]), record["digest"])
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            continue
        if facts.model == model:
            current[model], revisions[model] = facts, revision
    return current
