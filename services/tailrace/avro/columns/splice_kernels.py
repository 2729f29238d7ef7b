"""The kernels that prediction events are made of: numbers, and the pieces end to end."""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace.kernels.compiler import kernel

_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_INTS = "Array(int64, 1, 'A', readonly=True)"

MOST_VARINT = 10
MOST_DECIMALS = 19


@kernel(f"void({_INTS}, uint8[:, ::1], int64[::1])")
def write_longs(numbers: Any, digits: Any, sizes: Any) -> None:
    """Zig-zag numbers of variable length, each in the first ``sizes`` bytes of its row of ``digits``."""
    for row in range(len(numbers)):
        number = numbers[row]
        rest = np.uint64(number << 1) ^ np.uint64(number >> 63)
        size = 0
        while rest >= 0x80:
            digits[row, size] = (rest & np.uint64(0x7F)) | np.uint64(0x80)
            rest >>= np.uint64(7)
            size += 1
        digits[row, size] = rest
        sizes[row] = size + 1


@kernel(f"void({_INTS}, uint8[:, ::1], int64[::1])")
def write_decimals(numbers: Any, digits: Any, sizes: Any) -> None:
    """Numbers that are not negative, in decimal, each in the first ``sizes`` bytes of its row of ``digits``."""
    for row in range(len(numbers)):
        size, rest = 1, numbers[row]
        while rest >= 10:
            size, rest = size + 1, rest // 10
        rest = numbers[row]
        for place in range(size - 1, -1, -1):
            digits[row, place] = 48 + rest % 10
            rest //= 10
        sizes[row] = size


@kernel(f"uint8[::1]({_BYTES}, int64[:, ::1], int64[:, ::1])")
def splice(data: Any, begins: Any, sizes: Any) -> Any:
    """The pieces of every row end to end.

    Args:
        data: what the pieces are of.
        begins, sizes: [pieces, rows], of each piece.
    """
    pieces, rows = begins.shape
    spliced = np.empty(sizes.sum(), dtype=np.uint8)
    # Numbers without a sign: one that could be negative might count from the end, and be looked at byte by byte.
    at = np.uint64(0)
    for row in range(rows):
        for piece in range(pieces):
            begin, size = np.uint64(begins[piece, row]), np.uint64(sizes[piece, row])
            for place in range(size):
                spliced[at + place] = data[begin + place]
            at += size
    return spliced
