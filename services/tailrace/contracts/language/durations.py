"""Durations (``30s``, ``5min``, ``12h``, ``7d``) and shares (``5%``) as contracts spell them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1_000, "ms": 1}
DURATION_PATTERN = r"^(0|[1-9][0-9]{0,8})(ms|s|min|h|d)$"
SHARE_PATTERN = r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,10})?)%$"

_NO_DURATION = "is not a duration; write a whole number and a unit: 500ms, 30s, 5min, 12h or 7d"
_NO_SHARE = "is not a share; write a percentage between 0% and 100%, such as 5% or 0.5%"


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as ``5min``.

    Raises:
        ValueError: the text is no duration.
    """
    match = re.fullmatch(DURATION_PATTERN, text)
    if not match:
        raise ValueError(f"{text!r} {_NO_DURATION}")
    return int(match[1]) * _UNITS_MS[match[2]]


def format_duration(milliseconds: int) -> str:
    """The one canonical spelling: the largest unit that needs no fraction (300 s is ``5min``)."""
    if milliseconds == 0:
        return "0s"
    unit = next(unit for unit, size in _UNITS_MS.items() if milliseconds % size == 0)
    return f"{milliseconds // _UNITS_MS[unit]}{unit}"


def parse_share(text: str) -> float:
    """A share between 0 and 1, written as a percentage: ``0.5%`` is 0.005.

    Raises:
        ValueError: the text is no percentage between 0% and 100%.
    """
    if not re.fullmatch(SHARE_PATTERN, text):
        raise ValueError(f"{text!r} {_NO_SHARE}")
    return float(Decimal(text[:-1]) / 100)


def format_share(share: float) -> str:
    """The one canonical spelling: no trailing zeros (0.005 is ``0.5%``)."""
    return f"{(Decimal(repr(share)) * 100).normalize():f}%"


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError(f"{value!r} {_NO_DURATION}")


def _positive_duration(value: Any) -> Any:
    milliseconds = _duration(value)
    if milliseconds == 0:
        raise ValueError("must be longer than zero")
    return milliseconds


def _share(value: Any) -> Any:
    if isinstance(value, str):
        return parse_share(value)
    raise ValueError(f"{value!r} {_NO_SHARE}")


_spelt = PlainSerializer(format_duration, return_type=str)
_schema = WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})

Duration = Annotated[int, BeforeValidator(_positive_duration), _spelt, _schema]
"""Milliseconds, more than zero."""

DurationOrZero = Annotated[int, BeforeValidator(_duration), _spelt, _schema]
"""Milliseconds, zero allowed."""

Share = Annotated[
    float,
    BeforeValidator(_share),
    PlainSerializer(format_share, return_type=str),
    WithJsonSchema({"type": "string", "pattern": SHARE_PATTERN}),
]
"""Between 0 and 1."""
