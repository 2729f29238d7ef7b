"""Names of fields that Avro, ClickHouse and SQL can spell, as close to a file's as may be."""

from __future__ import annotations

import re
from collections.abc import Collection

from tailrace.contracts.language.names import ENVELOPE_FIELDS, EXPRESSION_NAMES, RESERVED_FIELDS

_COMPARED = {
    ">=": "at_least",
    "<=": "at_most",
    "<>": "is_not",
    "!=": "is_not",
    "=": "is",
    ">": "over",
    "<": "under",
}


def field_name(column: str, taken: Collection[str] = ()) -> str:
    """A name that is not taken, in capitals or small letters."""
    name = _spelled(column)
    lowered = {other.lower() for other in taken}
    number = 2
    candidate = name
    while candidate.lower() in lowered or candidate in RESERVED_FIELDS:
        candidate = f"{name}_{number}"
        number += 1
    return candidate


def why_renamed(column: str, name: str) -> str:
    """Why a column's field has another name."""
    wanted = _spelled(column)
    if wanted in ENVELOPE_FIELDS:
        why = f"every request has a field {wanted!r} of its own"
    elif wanted in EXPRESSION_NAMES:
        why = f"{wanted!r} means the answer's in expressions"
    elif wanted in RESERVED_FIELDS:
        why = f"labels and actions have a field {wanted!r} of their own"
    elif wanted != name:
        why = f"another field is called {wanted!r}"
    else:
        why = "every system can spell that"
    return f"{column!r} is called {name!r}: {why}"


def words(expression: str) -> str:
    """A name for what an expression says: ``quality >= 7`` is ``quality_at_least_7``."""
    for operator, word in _COMPARED.items():
        expression = expression.replace(operator, f" {word} ")
    return re.sub(r"-(?=[\d.])", "minus ", expression).lower()


def _spelled(column: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_") or "column"
    return (name if name[0].isalpha() else f"x_{name}")[:70]
