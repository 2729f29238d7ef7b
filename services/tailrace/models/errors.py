"""Why a package is refused, and what a library says of it."""

from __future__ import annotations

from tailrace.errors import TailraceError


class PackageRefused(TailraceError):
    """A package that must not be loaded.

    ``check`` is the stable name of the check that it failed (size, signature, digest, chunk, anti-rollback, manifest,
    reference, schema, model, golden, latency, memory, time, crash, open); ``reason`` says what was found, for people.
    """

    def __init__(self, check: str, reason: str) -> None:
        super().__init__(f"package refused ({check}): {reason}")
        self.check = check
        self.reason = reason


def first_line(error: Exception, limit: int = 200) -> str:
    """Of the error's text, at most so many characters; its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:limit] if text else type(error).__name__
