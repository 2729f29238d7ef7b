"""Where a partition's requests are kept: RocksDB, or a dict in its place for tests.

A store is a cache of what the log says. It holds requests by key, times at which to look at them again, and the
standing: the offsets that all of it stands for. One write is one step from one standing to the next; after a kill
the store is at one of the last standings, and the log has the rest.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

STANDING = b"s"
REQUEST = b"r"
LOOK = b"t"
_SHIFT = 1 << 63


def request_key(model: str, request_id: bytes) -> bytes:
    return REQUEST + model.encode() + b"\0" + request_id


def look_key(time: int, request: bytes) -> bytes:
    """The key that orders by time, and after it names a request's key."""
    return LOOK + (time + _SHIFT).to_bytes(8, "big") + request


def look_bound(time: int) -> bytes:
    return LOOK + (min(max(time, -_SHIFT), _SHIFT - 1) + _SHIFT).to_bytes(8, "big")


class Store(Protocol):
    """Bytes by key.

    Each method but ``close`` raises `StateLost` where it finds the store damaged, and leaves it empty then.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def looks(self, begin: int, end: int) -> list[tuple[bytes, bytes]]:
        """Look keys of times from ``begin`` up to, not including, ``end``, by time; each with its request's key."""
        ...

    def write(self, puts: Mapping[bytes, bytes], deletes: Collection[bytes]) -> None:
        """All of it or, after a kill, nothing; and nothing that is later without it."""
        ...

    def wipe(self) -> None: ...

    def throw_away(self, why: str) -> None:
        """Empties it since it is damaged, and says so in the log."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """A store that is gone with its process."""

    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}
        self._looks: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        return self.content.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.content.get(key) for key in keys]

    def looks(self, begin: int, end: int) -> list[tuple[bytes, bytes]]:
        first, last = (bisect_left(self._looks, look_bound(time)) for time in (begin, end))
        return [(key, key[9:]) for key in self._looks[first:last]]

    def write(self, puts: Mapping[bytes, bytes], deletes: Collection[bytes]) -> None:
        for key, value in puts.items():
            if key.startswith(LOOK) and key not in self.content:
                insort(self._looks, key)
            self.content[key] = value
        for key in deletes:
            if self.content.pop(key, None) is not None and key.startswith(LOOK):
                del self._looks[bisect_left(self._looks, key)]

    def wipe(self) -> None:
        self.content.clear()
        self._looks.clear()

    def throw_away(self, why: str) -> None:
        self.wipe()

    def close(self) -> None:
        pass
