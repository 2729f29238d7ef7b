"""What pydantic finds wrong in a file, said for people."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from tailrace.contracts.problems import FieldPath, Violation, did_you_mean


def explain(
    details: ErrorDetails, model: type[BaseModel], spelled: Mapping[FieldPath, str] | None = None
) -> Violation:
    """What pydantic found, said for people; ``spelled`` are scalars as they stand in the file."""
    path: FieldPath = tuple(part for part in details["loc"] if part != "[key]")
    value = details["input"]
    context: dict[str, Any] = details.get("ctx") or {}
    kind = details["type"]
    if kind == "missing":
        return Violation(path, "is missing", f"add {path[-1]!r}")
    if kind == "extra_forbidden":
        remedy = did_you_mean(str(path[-1]), _known(model, path[:-1]))
        return Violation(path, "is no field of a contract here", remedy)
    if kind in ("value_error", "assertion_error"):
        what, _, remedy = details["msg"].removeprefix("Value error, ").partition("; ")
        return Violation(path, what, remedy)
    if kind == "literal_error":
        choices = [choice.strip(" '") for choice in context["expected"].replace(" or ", ", ").split(",")]
        return Violation(path, f"{value!r} is not allowed", did_you_mean(str(value), choices))
    if kind == "string_type":
        written = (spelled or {}).get(path, str(value))
        is_scalar = isinstance(value, bool | int | float)
        return Violation(
            path,
            f"must be text, not {written if is_scalar else _called(value)}",
            f'write it in quotes: "{written}"' if is_scalar else "",
        )
    if kind == "string_pattern_mismatch":
        return Violation(path, f"{value!r} is no valid name", f"it must match {context['pattern']}")
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return Violation(path, f"must be a mapping, not {_called(value)}", "write {name: value, ...}")
    if kind == "list_type":
        return Violation(path, f"must be a list, not {_called(value)}", "write [a, b, ...]")
    if kind in ("float_type", "int_type", "bool_type", "int_from_float"):
        wanted = {"float_type": "a number", "bool_type": "true or false"}.get(kind, "a whole number")
        return Violation(path, f"must be {wanted}, not {_called(value)}", "")
    return Violation(path, details["msg"][:1].lower() + details["msg"][1:], "")


def _called(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"the text {value!r}" if isinstance(value, str) else repr(value)


def _known(model: type[BaseModel], path: FieldPath) -> Iterable[str]:
    """The keys that are allowed at a place."""
    kind: Any = model
    for part in path:
        if fields := _fields(kind):
            kind = fields.get(str(part))
        else:
            kind = next((get_args(k)[-1] for k in _flat(kind) if get_origin(k) in (list, dict)), None)
    return _fields(kind)


def _fields(kind: Any) -> dict[str, Any]:
    """The types of a model's fields, by the names that files use."""
    models = (k for k in _flat(kind) if isinstance(k, type) and issubclass(k, BaseModel))
    fields = next((model.model_fields for model in models), {})
    return {field.alias or name: field.annotation for name, field in fields.items()}


def _flat(kind: Any) -> list[Any]:
    """The members of a union, annotations taken off."""
    if hasattr(kind, "__metadata__"):
        return _flat(kind.__origin__)
    if get_origin(kind) in (Union, types.UnionType):
        return [member for choice in get_args(kind) for member in _flat(choice)]
    return [kind]
