"""Why a signature counts for nothing."""

from __future__ import annotations

from tailrace.errors import TailraceError


class SignatureRefused(TailraceError):
    """A signature that must not be believed; its text says why, for people."""
