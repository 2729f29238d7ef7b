"""What differs between two contracts, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tailrace.contracts.problems import FieldPath, format_path

_NOTHING = object()


class Change(NamedTuple):
    """One field that differs. ``before`` is None where it is new, ``after`` where it goes."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.field}: {_text(self.after)}"
        if self.after is None:
            return f"- {self.field}: {_text(self.before)}"
        return f"~ {self.field}: {_text(self.before)} -> {_text(self.after)}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The differences of two resolved contracts (``ModelContract.to_dict``), in the order of their fields.

    Mappings are compared field by field, lists as wholes where their lengths differ.
    """
    return list(_differ((), before, after))


def _differ(path: FieldPath, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _differ((*path, name), before.get(name, _NOTHING), after.get(name, _NOTHING))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from _differ((*path, index), *pair)
    elif before != after:
        old, new = (None if value is _NOTHING else value for value in (before, after))
        yield Change(format_path(path), old, new)


def _text(value: Any) -> str:
    """As YAML in flow style, near enough."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_text(inner) for inner in value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
