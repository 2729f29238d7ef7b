"""Of what types the fields of predictions and outcomes are, whatever schema they were written in.

Whoever may produce may register a schema of his own, in which a field of the right name is of another type, or is not
there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tailrace.avro.columns.decoder import Column
from tailrace.errors import BadRecord
from tailrace.evaluator.field_columns import Fields, ObjectColumn, numbers, present

_NONE = type(None)
_SCALARS = frozenset({int, float, bool, str, _NONE})
_TEXT, _NUMBER = frozenset({str}), frozenset({int})
_FLAG = frozenset({bool, float, int})  # columns have numbers
_MAYBE_TEXT, _MAYBE_REAL = frozenset({str, _NONE}), frozenset({float, int, _NONE})
_TYPES = {
    "event_time": _NUMBER,
    "version": _NUMBER,
    "artifact_digest": _TEXT,
    "contract_digest": _TEXT,
    "role": _TEXT,
    "arm": _MAYBE_TEXT,
    "served_by": _TEXT,
    "served_cause": _MAYBE_TEXT,
    "latency_ms": frozenset({float, int}),
    "score": _MAYBE_REAL,
    "predicted_class": _MAYBE_TEXT,
    "value": _MAYBE_REAL,
    "action": _TEXT,
    "guarded": _FLAG,
    "interval_low": _MAYBE_REAL,
    "interval_high": _MAYBE_REAL,
    "revision": _NUMBER,
    "state": _TEXT,
    "duplicate_of": _MAYBE_TEXT,
    "known_at": _NUMBER,
    "late": _FLAG,
    "action_taken": _MAYBE_TEXT,
    "before.state": _MAYBE_TEXT,
    "before.action_taken": _MAYBE_TEXT,
    "champion.version": frozenset({int, _NONE}),
    "champion.score": _MAYBE_REAL,
    "champion.predicted_class": _MAYBE_TEXT,
    "champion.value": _MAYBE_REAL,
    "champion.action": _MAYBE_TEXT,
}


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
    wrong: dict[int, BadRecord] = {}
    for name, column in fields.items():
        wrong |= dict.fromkeys(_wrong_rows(column, name.removeprefix(prefix)), _bad(name))
    if "champion.version" in fields:
        version = fields["champion.version"]
        unlike = present(version) != present(fields["champion.action"])
        negative = present(version) & (numbers(version) < 0)
        wrong |= dict.fromkeys(np.flatnonzero(unlike | negative).tolist(), _bad("champion.version"))
    return wrong


def _bad(name: str) -> BadRecord:
    return BadRecord("unsupported-schema", f"{name} is not there, or not of its type", name)


def _wrong_rows(column: Column, own: str) -> list[int]:
    allowed = _TYPES.get(own, _SCALARS)
    if isinstance(column.values, ObjectColumn):
        is_fine = _CONTAINERS.get(own, lambda value: type(value) in allowed)
        fine = column.values.mapped(is_fine, own in _CONTAINERS or _NONE in allowed)
    else:
        kinds = {"f": float, "i": int}
        kind = kinds[column.values.dtype.kind] if isinstance(column.values, np.ndarray) else str
        if column.present is None and kind in allowed:
            return []
        fine = np.where(present(column), kind in allowed, _NONE in allowed)
    return np.flatnonzero(~fine).tolist()
