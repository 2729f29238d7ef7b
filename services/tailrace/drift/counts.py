"""What is counted of a window, and its form in bytes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailrace.errors import BadRecord
from tailrace.statistics.result import Ints

_HEAD = struct.Struct("<BBqqI")
_DENSE, _SPARSE = 0, 1
_INDEX = np.dtype("<u4")
_MOST_SLOTS = 1 << 22
_MOST = 1 << 40


@dataclass(frozen=True, eq=False)
class DriftCounts:
    """Rows of a window, rows that came too late for theirs while this one was open, and rows by slot.

    ``slots`` is empty where the package's reference was not to be had.
    """

    rows: int
    late: int
    slots: Ints

    def plus(self, other: DriftCounts) -> DriftCounts:
        """The sum. Rows that were counted without a reference are in ``rows`` alone."""
        mine, theirs = self.slots, other.slots
        if len(mine) == len(theirs):
            slots: Ints = mine + theirs
        else:  # of one package all have as many; the widest count, so that the order does not matter
            slots = mine if len(mine) > len(theirs) else theirs
        return DriftCounts(self.rows + other.rows, self.late + other.late, slots)

    def lean(self) -> DriftCounts | SparseCounts:
        """The same in less memory where few slots have anything, as in a window with few rows of many features."""
        filled = np.flatnonzero(self.slots)
        if 3 * len(filled) > len(self.slots):
            return self
        return SparseCounts(self.rows, self.late, len(self.slots), filled.astype(_INDEX), self.slots[filled])

    def whole(self) -> DriftCounts:
        return self

    def to_bytes(self) -> bytes:
        """Small where few slots have anything: a batch has few rows, and often few windows' worth of them."""
        largest = int(self.slots.max(initial=0))
        size = next(size for size in (1, 2, 4, 8) if largest < 1 << 8 * size - (size == 8))
        kind = np.dtype(f"<u{size}")
        filled = np.flatnonzero(self.slots)
        if len(filled) * (_INDEX.itemsize + size) < len(self.slots) * size:
            form, body = _SPARSE, filled.astype(_INDEX).tobytes() + self.slots[filled].astype(kind).tobytes()
        else:
            form, body = _DENSE, self.slots.astype(kind).tobytes()
        return _HEAD.pack(form, size, self.rows, self.late, len(self.slots)) + zlib.compress(body, 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> DriftCounts:
        """Raises `BadRecord` where `to_bytes` writes no such bytes."""
        try:
            form, size, rows, late, width = _HEAD.unpack_from(data)
            if form not in (_DENSE, _SPARSE) or size not in (1, 2, 4, 8) or width > _MOST_SLOTS:
                raise ValueError("no such form")
            counts = cls(rows, late, _slots(form, size, width, _inflated(data[_HEAD.size :])))
        except (struct.error, zlib.error, ValueError, IndexError) as error:
            raise BadRecord("corrupt", f"counts that cannot be read: {error}", "cells.counts") from error
        most = max(rows, late, int(counts.slots.max(initial=0)))
        if min(rows, late, int(counts.slots.min(initial=0))) < 0 or most > _MOST:
            raise BadRecord("out-of-range", "counts that nothing comes to", "cells.counts")
        return counts


@dataclass(frozen=True, eq=False)
class SparseCounts:
    """`DriftCounts` of which the slots that have something are kept, with how much that is."""

    rows: int
    late: int
    width: int
    filled: NDArray[np.uint32]
    counts: Ints

    def whole(self) -> DriftCounts:
        slots = np.zeros(self.width, dtype=np.int64)
        slots[self.filled] = self.counts
        return DriftCounts(self.rows, self.late, slots)


def _inflated(data: bytes) -> bytes:
    """Raises zlib.error, and ValueError where it is far more than counts are."""
    inflating = zlib.decompressobj()
    body = inflating.decompress(data, _MOST_SLOTS * 16)
    if not inflating.eof:
        raise ValueError("more than any counts, or cut off")
    return body


def _slots(form: int, size: int, width: int, body: bytes) -> Ints:
    kind = np.dtype(f"<u{size}")
    if form == _DENSE:
        slots = np.frombuffer(body, dtype=kind).astype(np.int64)
        if len(slots) != width:
            raise ValueError("not as many as it says")
        return slots
    filled, rest = divmod(len(body), _INDEX.itemsize + size)
    if rest:
        raise ValueError("not whole")
    slots = np.zeros(width, dtype=np.int64)
    slots[np.frombuffer(body, _INDEX, filled)] = np.frombuffer(body, kind, filled, filled * _INDEX.itemsize)
    return slots
