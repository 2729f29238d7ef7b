"""Of which refused records there is an alert: of each of the first of an hour, then of fewer and fewer.

Whoever can write to a control topic could otherwise have as many alerts written as it writes records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

HOUR_MS = 3_600_000
EACH = 10
"""So many records of a topic have an alert each within an hour; after them the 16th, the 32nd and so on."""


class RefusalCount(NamedTuple):
    """Of refused records of one topic. ``hour``: since 1970, by when they were appended."""

    hour: int = 0
    records: int = 0

    @property
    def has_alert(self) -> bool:
        return self.records <= EACH or self.records & (self.records - 1) == 0


class Refusals:
    """Counts refused records by topic. What it has counted is committed with the offsets that it has counted up to."""

    def __init__(self, counts: Mapping[str, RefusalCount] | None = None) -> None:
        self._counts = dict(counts or {})

    def copy(self) -> Refusals:
        return Refusals(self._counts)

    def count(self, topic: str, appended_ms: int) -> RefusalCount:
        """Takes one more in."""
        hour, last = appended_ms // HOUR_MS, self._counts.get(topic, RefusalCount())
        counted = RefusalCount(hour, 1) if hour > last.hour else RefusalCount(last.hour, last.records + 1)
        self._counts[topic] = counted
        return counted

    def facts(self) -> dict[str, Sequence[int]]:
        """As committed."""
        return dict(sorted(self._counts.items()))

    def restore(self, facts: Mapping[str, Sequence[int]]) -> None:
        """Takes up what was committed; of several commits, whatever has counted furthest."""
        for topic, (hour, records) in facts.items():
            self._counts[topic] = max(self._counts.get(topic, RefusalCount()), RefusalCount(hour, records))
