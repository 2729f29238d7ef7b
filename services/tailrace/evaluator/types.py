"""Of what types the fields of predictions and outcomes are, whatever schema they were written in.

Whoever may produce may register a schema of his own, in which a field of the right name is of another type, or is not
there.
"""

from __future__ import annotations

from typing import Any

from tailrace.errors import BadRecord
from tailrace.evaluator.fields import Fields

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


def wrong_types(fields: Fields, prefix: str) -> dict[int, BadRecord]:
    """By row, which field is not of its type.

    Args:
        prefix: what stands before the names of a prediction's own fields.
    """
    wrong: dict[int, BadRecord] = {}
    for name, column in fields.items():
        own = name.removeprefix(prefix)
        if own.endswith("probabilities"):
            wrong |= {row: _bad(name) for row, value in enumerate(column) if not _is_shares(value)}
        elif own == "prediction_set":
            wrong |= {row: _bad(name) for row, value in enumerate(column) if not _is_set(value)}
        else:
            allowed = _TYPES.get(own, _SCALARS)
            if not allowed.issuperset(map(type, column)):
                wrong |= {row: _bad(name) for row, value in enumerate(column) if type(value) not in allowed}
    if "champion.version" in fields:
        pairs = zip(fields["champion.version"], fields["champion.action"], strict=True)
        for row, (version, action) in enumerate(pairs):
            if (version is None) != (action is None) or (type(version) is int and version < 0):
                wrong[row] = _bad("champion.version")
    return wrong


def _bad(name: str) -> BadRecord:
    return BadRecord("unsupported-schema", f"{name} is not there, or not of its type", name)


def _is_shares(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(isinstance(share, float) for share in value.values())


def _is_set(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
