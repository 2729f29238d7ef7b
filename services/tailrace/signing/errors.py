"""Why a signature counts for nothing."""

from __future__ import annotations

from tailrace.errors import TailraceError


class SignatureRefused(TailraceError):
    """A signature that must not be believed; ``reason`` says why, for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
