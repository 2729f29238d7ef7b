"""How a statement fails: by the engine's own words, or refused in words of the same form."""

from __future__ import annotations

ACCESS_DENIED = (497, "ACCESS_DENIED")
NO_SESSION = (372, "SESSION_NOT_FOUND")


class EngineError(Exception):
    """A statement failed. ``code`` is ClickHouse's error code, the message ClickHouse's own or of its form."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class StatementRefused(EngineError):
    """A statement that is not run. ``kind`` is the code and the name that ClickHouse has for such a reason."""

    def __init__(self, reason: str, kind: tuple[int, str] = ACCESS_DENIED) -> None:
        code, name = kind
        super().__init__(code, f"Code: {code}. DB::Exception: {reason}. ({name})")
