"""The kernel that reads Avro bodies: it follows a schema's program byte by byte.

A program is a list of instructions ``(operation, where, number, target)``, made by `avro.columns.decoder`. ``where`` is
the row of the array that takes the value, ``number`` that of ``present``; both are -1 for what is only passed over.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace.kernels.compiler import kernel

DOUBLE, BOOLEAN, LONG, TEXT = 0, 1, 2, 3
NULLABLE = 4
"""Goes to ``target`` where the branch is null."""
BLOCKS = 5
"""Begins an array or a map, which ends before ``target``: goes there where it is empty."""
NEXT = 6
"""Ends an item; goes to ``target``, where items begin, while there are more."""
PIECE, PIECE_END = 7, 8
"""Where the piece begins and ends."""

DEEPEST = 32
"""How far arrays and maps may nest."""

_MOST_VARINT = 10
_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_INTS = "Array(int64, 1, 'A', readonly=True)"


@kernel(f"int64[::1]({_BYTES}, {_INTS}, {_INTS})")
def schema_ids(data: Any, begins: Any, ends: Any) -> Any:
    """The schema id in the header of each value in wire format; -1 where it has no such header."""
    ids = np.full(len(begins), -1, dtype=np.int64)
    for row in range(len(begins)):
        at = begins[row]
        if ends[row] - at >= 5 and data[at] == 0:
            number = 0
            for place in range(1, 5):
                number = number << 8 | data[at + place]
            ids[row] = number
    return ids


@kernel(f"Tuple((int64, int64))({_BYTES}, int64, int64)")
def read_long(data: Any, at: Any, end: Any) -> Any:
    """A zig-zag number of at most ten bytes, none more than it needs, and where it ends: -1 if it is broken."""
    zig_zag = np.uint64(0)
    for place in range(_MOST_VARINT):
        if at >= end:
            return 0, -1
        byte = data[at]
        at += 1
        if place and byte == 0:
            return 0, -1
        if place == _MOST_VARINT - 1 and byte > 1:
            return 0, -1
        zig_zag |= np.uint64(byte & 0x7F) << np.uint64(7 * place)
        if byte < 0x80:
            return np.int64(zig_zag >> np.uint64(1)) ^ -np.int64(zig_zag & np.uint64(1)), at
    return 0, -1


@kernel(f"boolean({_BYTES}, int64, int64)")
def is_utf8(data: Any, at: Any, end: Any) -> Any:
    """Whether these bytes are UTF-8 (RFC 3629): no form longer than needed, no surrogates, nothing past U+10FFFF."""
    while at < end:
        byte = data[at]
        if byte < 0x80:
            at += 1
            continue
        least, most = 0x80, 0xBF
        if 0xC2 <= byte <= 0xDF:
            more = 1
        elif 0xE0 <= byte <= 0xEF:
            more = 2
            if byte == 0xE0:
                least = 0xA0
            elif byte == 0xED:
                most = 0x9F
        elif 0xF0 <= byte <= 0xF4:
            more = 3
            if byte == 0xF0:
                least = 0x90
            elif byte == 0xF4:
                most = 0x8F
        else:
            return False
        if at + more >= end or not least <= data[at + 1] <= most:
            return False
        for place in range(2, more + 1):
            if not 0x80 <= data[at + place] <= 0xBF:
                return False
        at += more + 1
    return True


@kernel(
    f"boolean[::1](int64[:, ::1], {_BYTES}, {_INTS}, {_INTS}, int64, float64[:, ::1], int64[:, ::1], "
    f"int64[:, ::1], int64[:, ::1], boolean[:, ::1], int64[::1], int64[::1])"
)
def decode(
    program: Any,
    data: Any,
    starts: Any,
    stops: Any,
    header: Any,
    doubles: Any,
    longs: Any,
    begins: Any,
    ends: Any,
    present: Any,
    piece_begins: Any,
    piece_ends: Any,
) -> Any:
    """Runs the program over each value, which is ``data`` from its start to its stop; says which values are good.

    Args:
        header: bytes before the body.
        doubles, longs, begins, ends: [columns, values], filled in where there is a value; those of broken ones mean
            nothing.
        present: [columns, values], false; true where there is a value of a good one.
        piece_begins, piece_ends: by value, -1 where it is broken.
    """
    rows = len(starts)
    good = np.ones(rows, dtype=np.bool_)
    remaining = np.empty(DEEPEST, dtype=np.int64)
    doubles_of_bytes = np.empty(1, dtype=np.float64)
    eight = doubles_of_bytes.view(np.uint8)
    for row in range(rows):
        at, end = starts[row] + header, stops[row]
        step = depth = 0
        fine = at <= end
        while fine and step < len(program):
            operation, where, number, target = program[step]
            step += 1
            if operation == NULLABLE:
                if at >= end:
                    fine = False
                elif data[at] == 0:
                    step = target
                elif data[at] != 2:
                    fine = False
                at += 1
            elif operation == DOUBLE:
                if at + 8 > end:
                    fine = False
                else:
                    if where >= 0:
                        for place in range(8):
                            eight[place] = data[at + place]
                        doubles[where, row] = doubles_of_bytes[0]
                    at += 8
            elif operation == BOOLEAN:
                if at >= end or data[at] > 1:
                    fine = False
                else:
                    if where >= 0:
                        doubles[where, row] = data[at]
                    at += 1
            elif operation == LONG:
                value, at = read_long(data, at, end)
                fine = at >= 0
                if where >= 0:
                    longs[where, row] = value
            elif operation == TEXT:
                size, at = read_long(data, at, end)
                fine = at >= 0 and 0 <= size <= end - at
                if fine:
                    if where >= 0:
                        begins[where, row], ends[where, row] = at, at + size
                        fine = is_utf8(data, at, at + size)
                    at += size
            elif operation == BLOCKS:
                count, at = read_long(data, at, end)
                if at < 0:
                    fine = False
                elif count == 0:
                    step = target
                # Every item takes a byte at least, so that no number makes this long. Fewer than none: a form that
                # the reference does not write.
                elif count < 0 or count > end - at:
                    fine = False
                else:
                    remaining[depth] = count
                    depth += 1
            elif operation == NEXT:
                remaining[depth - 1] -= 1
                if remaining[depth - 1]:
                    step = target
                else:
                    depth -= 1
                    count, at = read_long(data, at, end)
                    fine = at >= 0 and count == 0
            elif operation == PIECE:
                piece_begins[row] = at
            else:
                piece_ends[row] = at
            if number >= 0:
                present[number, row] = fine
        if not fine or at != end:
            good[row] = False
            present[:, row] = False
            if len(piece_begins):
                piece_begins[row] = -1
    return good
