"""The kernels below `BytesColumn`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace.kernels.compiler import kernel

_BYTES, _INTS = "Array(uint8, 1, 'C', readonly=True)", "Array(int64, 1, 'A', readonly=True)"

# What marshal writes in front of a list and of bytes, with the length in four bytes behind; and for None.
LIST, TEXT, NONE = ord("["), ord("s"), ord("N")
HEAD = 5


@kernel(f"int64[::1]({_BYTES}, {_INTS}, {_INTS}, {_BYTES}, {_INTS}, {_INTS})")
def match(data: Any, begins: Any, ends: Any, known: Any, known_begins: Any, known_ends: Any) -> Any:
    """By stretch of ``data``, which of ``known`` has the same bytes: -2 where none, -1 for one that begins at -1."""
    rows = len(begins)
    numbers = np.empty(rows, dtype=np.int64)
    for row in range(rows):
        begin = begins[row]
        if begin < 0:
            numbers[row] = -1
            continue
        size = ends[row] - begin
        numbers[row] = -2
        for number in range(len(known_begins)):
            other = known_begins[number]
            if known_ends[number] - other != size:
                continue
            at = 0
            while at < size and data[begin + at] == known[other + at]:
                at += 1
            if at == size:
                numbers[row] = number
                break
    return numbers


_CRC_32 = np.arange(256, dtype=np.uint64)
for _ in range(8):
    _CRC_32 = np.where(_CRC_32 & 1, _CRC_32 >> 1 ^ 0xEDB88320, _CRC_32 >> 1)


@kernel(f"uint64[::1]({_BYTES}, {_INTS}, {_INTS})")
def checksums(data: Any, begins: Any, ends: Any) -> Any:
    """CRC-32 of each stretch, as in zlib."""
    sums = np.empty(len(begins), dtype=np.uint64)
    for row in range(len(begins)):
        so_far = np.uint64(0xFFFFFFFF)
        for at in range(begins[row], ends[row]):
            so_far = _CRC_32[(so_far ^ np.uint64(data[at])) & np.uint64(0xFF)] ^ so_far >> np.uint64(8)
        sums[row] = so_far ^ np.uint64(0xFFFFFFFF)
    return sums


@kernel(f"Tuple((int64[::1], int64[::1]))({_BYTES}, {_INTS}, {_INTS})")
def distinct(data: Any, begins: Any, ends: Any) -> Any:
    """By stretch, the number of its bytes among those that differ (-1 for one that begins at -1), and the first
    stretch of each number. Made for few that differ.
    """
    rows = len(begins)
    numbers = np.full(rows, -1, dtype=np.int64)
    firsts = np.empty(rows, dtype=np.int64)
    count = 0
    last = 0
    for row in range(rows):
        begin = begins[row]
        if begin < 0:
            continue
        size = ends[row] - begin
        for turn in range(count):
            number = (last + turn) % count  # neighbours are often the same
            other = begins[firsts[number]]
            if ends[firsts[number]] - other != size:
                continue
            at = 0
            while at < size and data[begin + at] == data[other + at]:
                at += 1
            if at == size:
                numbers[row] = last = number
                break
        if numbers[row] < 0:
            firsts[count] = row
            numbers[row] = last = count
            count += 1
    return numbers, firsts[:count].copy()


@kernel(f"uint8[::1]({_BYTES}, {_INTS}, {_INTS})")
def marshalled(data: Any, begins: Any, ends: Any) -> Any:
    """The stretches as a list that ``marshal.loads`` reads, with None for one that begins at -1. Nothing else makes so
    many objects of bytes in so little time.
    """
    rows = len(begins)
    total = HEAD
    for row in range(rows):
        total += HEAD + ends[row] - begins[row] if begins[row] >= 0 else 1
    buffer = np.empty(total, dtype=np.uint8)
    buffer[0] = LIST
    for place in range(4):
        buffer[1 + place] = rows >> (8 * place) & 0xFF
    at = np.uint64(HEAD)
    for row in range(rows):
        if begins[row] < 0:
            buffer[at] = NONE
            at += np.uint64(1)
            continue
        begin, size = np.uint64(begins[row]), np.uint64(ends[row] - begins[row])
        buffer[at] = TEXT
        for place in range(np.uint64(4)):
            buffer[at + np.uint64(1) + place] = size >> (np.uint64(8) * place) & np.uint64(0xFF)
        at += np.uint64(HEAD)
        for place in range(size):
            buffer[at + place] = data[begin + place]
        at += size
    return buffer
