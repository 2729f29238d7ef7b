"""Where a partition's requests are kept: RocksDB, or a dict in its place for tests.

A store is a cache of what the log says. It holds requests by key, times at which to look at them again, and the
standing: the offsets that all of it stands for. One write is one step from one standing to the next; after a kill
the store is at one of the last standings, and the log has the rest.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from tailrace.joiner.progress import Spot

STANDING = b"s"
REQUEST = b"r"
LOOK = b"t"
_SHIFT = 1 << 63


def request_key(model: str, request_id: bytes) -> bytes:
    return REQUEST + model.encode() + b"\0" + request_id


_HEAD = len(LOOK) + 8 + 7


class Look(NamedTuple):
    """A request that is to be looked at, and when; in order of time, and within it of the request's digest."""

    time: int
    digest: int
    request: bytes

    @property
    def spot(self) -> Spot:
        return self.time, self.digest

    def key(self) -> bytes:
        time, within, request = self
        return LOOK + (time + _SHIFT).to_bytes(8, "big") + within.to_bytes(7, "big") + request

    @classmethod
    def of_key(cls, key: bytes) -> Look:
        time, within = int.from_bytes(key[1:9], "big") - _SHIFT, int.from_bytes(key[9:_HEAD], "big")
        return cls(time, within, key[_HEAD:])


def look_bound(spot: Spot) -> bytes:
    """Before the keys of all looks from there on."""
    time, within = spot
    time = min(max(time, -_SHIFT), _SHIFT - 1)
    return LOOK + (time + _SHIFT).to_bytes(8, "big") + within.to_bytes(7, "big")


class KeyValueStore(Protocol):
    """Bytes by key.

    Each method but ``close`` raises `StateLost` where it finds the store damaged, and leaves it empty then.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def looks(self, begin: Spot, end: Spot) -> Iterator[Look]:
        """From ``begin`` up to, not including, ``end``, in order, as the store is now."""
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

    def looks(self, begin: Spot, end: Spot) -> Iterator[Look]:
        first, last = (bisect_left(self._looks, look_bound(spot)) for spot in (begin, end))
        return map(Look.of_key, self._looks[first:last])

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
