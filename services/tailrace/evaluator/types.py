"""Of what types the fields of predictions and outcomes are, whatever schema they were written in.

Whoever may produce may register a schema of his own, in which a field of the right name is of another type, or is not
there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tailrace.avro.columns.decoder import Column
from tailrace.errors import BadRecord
from tailrace.evaluator.field_columns import Fields, ObjectColumn, numbers, present

_NONE = type(None)
_SCALARS = frozenset({int, float, bool, str, _NONE})
_FIELDS: Mapping[frozenset[type], Sequence[str]] = {
    frozenset({int}): ("event_time", "version", "revision", "known_at"),
    frozenset({int, _NONE}): ("champion.version",),
    frozenset({float, int}): ("latency_ms",),
    frozenset({float, int, _NONE}): (
        *("score", "value", "interval_low", "interval_high", "champion.score", "champion.value"),
    ),
    frozenset({bool, float, int}): ("guarded", "late"),  # columns have numbers
    frozenset({str}): ("artifact_digest", "contract_digest", "role", "served_by", "action", "state"),
    frozenset({str, _NONE}): (
        *("arm", "served_cause", "predicted_class", "duplicate_of", "action_taken"),
        *("before.state", "before.action_taken", "champion.predicted_class", "champion.action"),
    ),
}
_TYPES = {name: types for types, names in _FIELDS.items() for name in names}


def _is_shares(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(share, float) for share in value.values())


def _is_set(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_CONTAINERS: Mapping[str, Callable[[Any], bool]] = {
    "probabilities": _is_shares,
    "champion.probabilities": _is_shares,
    "prediction_set": _is_set,
}


def wrong_types(fields: Fields, prefix: str) -> dict[int, BadRecord]:
    """By row, which field is not of its type.

    Args:
        prefix: what stands before the names of a prediction's own fields.
    """
    problems: dict[int, BadRecord] = {}
    for name, column in fields.items():
        problems |= dict.fromkeys(_wrong_rows(column, name.removeprefix(prefix)), _bad(name))
    if "champion.version" in fields:
        version = fields["champion.version"]
        unlike = present(version) != present(fields["champion.action"])
        negative = present(version) & (numbers(version) < 0)
        problems |= dict.fromkeys(np.flatnonzero(unlike | negative).tolist(), _bad("champion.version"))
    return problems


def _bad(name: str) -> BadRecord:
    return BadRecord("unsupported-schema", f"{name} is not there, or not of its type", name)


def _wrong_rows(column: Column, own: str) -> list[int]:
    allowed = _TYPES.get(own, _SCALARS)
    if isinstance(column.values, ObjectColumn):
        is_fine = _CONTAINERS.get(own, lambda value: type(value) in allowed)
        fine = column.values.mapped(is_fine, own in _CONTAINERS or _NONE in allowed)
    else:
        is_array = isinstance(column.values, np.ndarray)
        kind = {"f": float, "i": int}[column.values.dtype.kind] if is_array else str
        fine = np.where(present(column), kind in allowed, _NONE in allowed)
    return np.flatnonzero(~fine).tolist()
