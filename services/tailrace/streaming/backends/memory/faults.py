"""What can go wrong with a call to the log in memory, and what no client of a bounded log may exceed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with a call: ``error`` is raised, before the call takes effect or (``applied``) after it.

    ``marker_delay_ms`` lets the markers of a commit or abort come that much later; it needs no error. ``astray_ms``
    raises the error and lets the request of a commit or abort arrive that much later, to end whatever transaction the
    same producer has open by then.
    """

    error: BaseException | None = None
    applied: bool = False
    marker_delay_ms: int = 0
    astray_ms: int = 0


Hook = Callable[[str, str], Fault | None]
"""Called with the client's name and the call's (``consume``, ``commit_transaction``, ...)."""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Records and bytes of a transaction, how long it is open, and how long a member of a group consumes nothing."""

    records: int
    size: int
    open_ms: int
    poll_ms: int


class Exceeded(AssertionError):
    """A client went beyond the log's limits."""
