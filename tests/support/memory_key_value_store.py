"""The joiner's store as a dict: gone with its process."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping, Sequence

from tailrace.joiner.progress import Spot
from tailrace.joiner.store import TIMER, Timer, timer_bound


class MemoryKeyValueStore:
    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}
        self._timers: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        return self.content.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.content.get(key) for key in keys]

    def timers(self, begin: Spot, end: Spot) -> Iterator[Timer]:
        first, last = (bisect_left(self._timers, timer_bound(spot)) for spot in (begin, end))
        return map(Timer.of_key, self._timers[first:last])

    def write(self, puts: Mapping[bytes, bytes], deletes: Collection[bytes]) -> None:
        for key, value in puts.items():
            if key.startswith(TIMER) and key not in self.content:
                insort(self._timers, key)
            self.content[key] = value
        for key in deletes:
            if self.content.pop(key, None) is not None and key.startswith(TIMER):
                del self._timers[bisect_left(self._timers, key)]

    def wipe(self) -> None:
        self.content.clear()
        self._timers.clear()

    def throw_away(self, why: str) -> None:
        self.wipe()

    def close(self) -> None:
        pass
