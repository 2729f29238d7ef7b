"""Which schemas are refused because bytes written with them can hurt their reader.

Anyone who may produce may register a schema, and fastavro decodes in C: a body of a recursive schema can nest
a million deep and overflow the stack, which ends the process (tried: SIGSEGV); an array of nulls may claim
2^60 items in ten bytes; records in records twenty levels down, two of each, are a million steps in no bytes
at all. No schema that serves a purpose here is like that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

MOST_STEPS = 10_000


class UnsafeSchema(ValueError):
    """Says what is wrong with the schema."""


class _Cost(NamedTuple):
    steps: int
    """How many values one value consists of, at most; an array's or map's items once."""
    empty: bool
    """Whether a value may take no bytes."""


def check_limits(schema: Any) -> None:
    """Raises `UnsafeSchema` for a valid schema that is recursive, or whose values cost more than their bytes."""
    cost = _cost(schema, {}, "")
    if cost.steps > MOST_STEPS:
        raise UnsafeSchema(f"a value of it has more than {MOST_STEPS} parts")


def _cost(schema: Any, named: dict[str, _Cost | None], namespace: str) -> _Cost:
    if isinstance(schema, str):
        return _of_name(schema, named, namespace)
    if isinstance(schema, list):
        return _Cost(1 + max((_cost(b, named, namespace).steps for b in schema), default=0), empty=False)
    kind = schema["type"]
    if kind in ("array", "map"):
        item = _cost(schema["items" if kind == "array" else "values"], named, namespace)
        if kind == "array" and item.empty:
            raise UnsafeSchema("it has an array whose items take no bytes")
        return _Cost(1 + item.steps, empty=False)
    if kind not in ("record", "error", "enum", "fixed"):
        return _cost(kind, named, namespace)
    name = schema["name"]
    namespace = schema.get("namespace", namespace)
    full = name if "." in name or not namespace else f"{namespace}.{name}"
    if kind in ("enum", "fixed"):
        named[full] = cost = _Cost(1, empty=kind == "fixed" and schema["size"] == 0)
    else:
        named[full] = None  # until it is known, whoever names it is inside it
        parts = [_cost(field["type"], named, full.rpartition(".")[0]) for field in schema["fields"]]
        named[full] = cost = _Cost(1 + sum(p.steps for p in parts), empty=all(p.empty for p in parts))
    return cost


def _of_name(name: str, named: dict[str, _Cost | None], namespace: str) -> _Cost:
    for full in (f"{namespace}.{name}", name):
        if full in named:
            cost = named[full]
            if cost is None:
                raise UnsafeSchema(f"{name} contains itself")
            return cost
    return _Cost(1, empty=name == "null")
