"""Whom counts are about."""

from __future__ import annotations

import json
from typing import NamedTuple, Self


class Subject(NamedTuple):
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
    def from_text(cls, text: str) -> Self:
        return cls(**json.loads(text))
