"""Where a partition's requests are kept.

A store is a cache of what the log says. It holds requests by key, their timers, and the partition's state: the
offsets that all of it stands for. One write is one step from one state to the next; after a kill the store is at one
of the last states, and the log has the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from tailrace.joiner.progress import Spot

STATE = b"s"
REQUEST = b"r"
TIMER = b"t"
_SHIFT = 1 << 63
_HEAD = len(TIMER) + 8 + 7


def request_key(model: str, request_id: bytes) -> bytes:
    return REQUEST + model.encode() + b"\0" + request_id


class Timer(NamedTuple):
    """A time at which something is due of a request; in order of time, and within it of the request's digest."""

    time: int
    digest: int
    request: bytes

    @property
    def spot(self) -> Spot:
        return self.time, self.digest

    def key(self) -> bytes:
        return timer_bound(self.spot) + self.request

    @classmethod
    def of_key(cls, key: bytes) -> Timer:
        time, within = int.from_bytes(key[1:9], "big") - _SHIFT, int.from_bytes(key[9:_HEAD], "big")
        return cls(time, within, key[_HEAD:])


def timer_bound(spot: Spot) -> bytes:
    """Before the keys of all timers from there on."""
    time, within = spot
    time = min(max(time, -_SHIFT), _SHIFT - 1)
    return TIMER + (time + _SHIFT).to_bytes(8, "big") + within.to_bytes(7, "big")


class KeyValueStore(Protocol):
    """Bytes by key.

    Each method but ``close`` raises `StateLost` where it finds the store damaged, and leaves it empty then.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def timers(self, begin: Spot, end: Spot) -> Iterator[Timer]:
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
