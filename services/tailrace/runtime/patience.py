"""Waiting for what makes progress, however slowly a busy machine lets it; and not for what makes none."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


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
