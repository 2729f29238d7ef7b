"""What is said where a statement is refused."""

from __future__ import annotations

ACCESS_DENIED = 497
NO_SESSION = 372

_NAMES = {ACCESS_DENIED: "ACCESS_DENIED", NO_SESSION: "SESSION_NOT_FOUND"}


class StatementRefused(Exception):
    """A statement that may not be run. ``code`` is the one that ClickHouse has for it, ``name`` ClickHouse's word."""

    def __init__(self, reason: str, code: int = ACCESS_DENIED) -> None:
        super().__init__(reason)
        self.code = code
        self.name = _NAMES[code]
