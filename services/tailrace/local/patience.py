"""Waiting for what makes progress, however slowly a busy machine lets it; and not for what makes none."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

import psutil

MOST_CPU_S = 600
"""Processor time counts as progress up to here, ten times the most that anything has needed to come up."""
_CPU_STEP_S = 3


class Patience:
    """Ends when nothing has changed for ``still_s`` seconds.

    Args:
        now: a clock, in seconds.
    """

    def __init__(self, still_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self.still_s = still_s
        self._now = now
        self._since = now()
        self._last: Hashable = None

    def look(self, *signs: Hashable) -> bool:
        """Whether to go on waiting, now that these are the signs of progress: counts, positions, reasons."""
        if signs != self._last:
            self._last = signs
            self._since = self._now()
        return self._now() - self._since <= self.still_s


def processor_time(pid: int | None) -> int:
    """How much processor time a process and its ended children have had, in steps of three seconds. A process that
    starts takes such a step in a minute also where twenty want its core; one that idles does not, and one that turns
    in circles has some time had all that counts.
    """
    try:
        times = psutil.Process(pid).cpu_times() if pid else None
    except psutil.Error:
        times = None
    return 0 if times is None else int(min(MOST_CPU_S, sum(times[:4])) / _CPU_STEP_S)
