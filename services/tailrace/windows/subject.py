"""Whom the counts of a window are about, as text: a NamedTuple of numbers and texts, whatever the kind of windows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from tailrace.errors import BadRecord

SubjectT = TypeVar("SubjectT", bound=tuple[Any, ...])
_NUMBERS = frozenset({"version", "against"})


def subject_text(subject: Any) -> str:
    """Canonical JSON, without what is None."""
    values = {name: value for name, value in subject._asdict().items() if value is not None}
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def read_subject(kind: Callable[..., SubjectT], text: str) -> SubjectT:
    """Raises `BadRecord` where `subject_text` writes no such text."""
    try:
        values = json.loads(text)
        subject = kind(**values)
        is_typed = all(type(value) is (int if name in _NUMBERS else str) for name, value in values.items())
        if is_typed and subject_text(subject) == text:
            return subject
    except (ValueError, TypeError, RecursionError):
        pass
    raise BadRecord("corrupt", f"{text[:200]!r} is no subject", "cells.subject")
