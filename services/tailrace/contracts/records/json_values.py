"""Single values as JSON has them, held to the type of their field: nothing is guessed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from tailrace.contracts.instants import read_time
from tailrace.errors import BadRecord

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


def _wrong(name: str, expected: str, value: Any) -> BadRecord:
    return BadRecord("wrong-type", f"{name} is to be {expected}, this is {_shown(value)}", name)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 40 else text[:40] + "..."


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadRecord("out-of-range", f"{name} is beyond what a number holds", name)
    return number


def integer(name: str, value: Any) -> int:
    """A whole number of 64 bits.

    Raises:
        BadRecord: ``wrong-type``, ``out-of-range``.
    """
    # JSON knows one kind of number: 35 and 35.0 are the same.
    if isinstance(value, float) and math.isinf(value):
        raise BadRecord("out-of-range", f"{name} is beyond what an integer holds", name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise _wrong(name, "an integer", value)
    if not _LOWEST <= value <= _HIGHEST:
        raise BadRecord("out-of-range", f"{name} is beyond 64 bits", name)
    return int(value)


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "text", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRecord("not-unicode", f"{name} has half of a surrogate pair", name) from error
    return value


def _time(name: str, value: Any) -> int:
    if not isinstance(value, str):
        return integer(name, value)
    try:
        return read_time(value)
    except ValueError as error:
        raise _wrong(name, "a time such as 2026-03-01T12:00:00Z", value) from error


READERS: dict[str, Callable[[str, Any], Any]] = {
    "double": _number,
    "long": integer,
    "boolean": _boolean,
    "string": _text,
    "timestamp": _time,
}
"""By the Avro type, a time's being ``timestamp``: from a field's name and a value to the value as the codec has it."""
