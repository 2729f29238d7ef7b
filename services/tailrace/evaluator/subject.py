"""Whom counts are about."""

from __future__ import annotations

from typing import NamedTuple


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
