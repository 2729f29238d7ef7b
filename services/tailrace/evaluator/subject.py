"""Whom counts are about."""

from __future__ import annotations

import json
from typing import NamedTuple, Self

from tailrace.errors import BadRecord


class PerformanceSubject(NamedTuple):
    """A version in a role, on all rows or on a slice.

    Attributes:
        artifact: digest of its package.
        segment: FIELD=VALUE, or a condition of the contract; empty for all rows.
        against: the version that answered the same requests; None where it is not compared with one.
    """

    version: int
    role: str
    artifact: str
    segment: str
    against: int | None = None

    def to_text(self) -> str:
        """Canonical JSON."""
        about = {name: value for name, value in self._asdict().items() if value is not None}
        return json.dumps(about, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises `BadRecord` where `to_text` writes no such text."""
        try:
            found = cls.from_text(text)
            numbers = (found.version, 0 if found.against is None else found.against)
            texts = (found.role, found.artifact, found.segment)
            typed = all(type(n) is int for n in numbers) and all(isinstance(each, str) for each in texts)
            if typed and found.to_text() == text:
                return found
        except (ValueError, TypeError, RecursionError):
            pass
        raise BadRecord("corrupt", f"{text[:200]!r} is no subject", "cells.subject")

    @classmethod
    def from_text(cls, text: str) -> Self:
        return cls(**json.loads(text))
