"""What is counted of a window, and its form in bytes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from tailrace.drift.result import Ints

_HEAD = struct.Struct("<BBqqI")
_DENSE, _SPARSE = 0, 1
_INDEX = np.dtype("<u4")


@dataclass(frozen=True, eq=False)
class Counts:
    """Rows of a window, rows that came too late for theirs while this one was open, and rows by slot.

    ``slots`` is empty where the package's reference was not to be had.
    """

    rows: int
    late: int
    slots: Ints

    def plus(self, other: Counts) -> Counts:
        """The sum. Rows that were counted without a reference are in ``rows`` alone."""
        mine, theirs = self.slots, other.slots
        if len(mine) and len(theirs):
            slots: Ints = mine + theirs
        else:
            slots = mine if len(mine) else theirs
        return Counts(self.rows + other.rows, self.late + other.late, slots)

    def to_bytes(self) -> bytes:
        """Small where few slots have anything: a batch has few rows, and often few windows' worth of them."""
        largest = int(self.slots.max(initial=0))
        size = next(size for size in (1, 2, 4, 8) if largest < 1 << 8 * size - (size == 8))
        kind = np.dtype(f"<u{size}")
        some = np.flatnonzero(self.slots)
        if len(some) * (_INDEX.itemsize + size) < len(self.slots) * size:
            form, body = _SPARSE, some.astype(_INDEX).tobytes() + self.slots[some].astype(kind).tobytes()
        else:
            form, body = _DENSE, self.slots.astype(kind).tobytes()
        return _HEAD.pack(form, size, self.rows, self.late, len(self.slots)) + zlib.compress(body, 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> Counts:
        form, size, rows, late, width = _HEAD.unpack_from(data)
        body = zlib.decompress(data[_HEAD.size :])
        kind = np.dtype(f"<u{size}")
        if form == _DENSE:
            return cls(rows, late, np.frombuffer(body, dtype=kind).astype(np.int64))
        some = len(body) // (_INDEX.itemsize + size)
        slots = np.zeros(width, dtype=np.int64)
        slots[np.frombuffer(body, _INDEX, some)] = np.frombuffer(body, kind, some, some * _INDEX.itemsize)
        return cls(rows, late, slots)
