"""The kernels that prediction events are made of: ids, numbers, and the pieces end to end."""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace.kit.kernels import kernel

_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_INTS = "Array(int64, 1, 'A', readonly=True)"

ID_DIGITS = 32
MOST_VARINT = 10

_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_MOST_DECIMALS = 20
_BLOCK = 64


def _roots() -> tuple[Any, Any]:
    """The constants of SHA-256: the first 32 bits of the fractional parts of the square roots of the first 8 primes,
    and of the cube roots of the first 64 (FIPS 180-4, 4.2.2 and 5.3.3), in whole numbers.
    """

    def root(number: int, power: int) -> int:
        low, high = 0, number
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**power <= number else (low, middle - 1)
        return low & 0xFFFFFFFF

    primes = [n for n in range(2, 312) if all(n % d for d in range(2, n))]
    return (
        np.array([root(prime << 64, 2) for prime in primes[:8]], dtype=np.uint32),
        np.array([root(prime << 96, 3) for prime in primes[:64]], dtype=np.uint32),
    )


_START, _ROUNDS = _roots()


@kernel(f"void({_INTS}, uint8[:, ::1], int64[::1])")
def write_longs(numbers: Any, digits: Any, sizes: Any) -> None:
    """Zig-zag numbers of variable length, each in the first ``sizes`` bytes of its row of ``digits``."""
    for row in range(len(numbers)):
        number = numbers[row]
        left = np.uint64(number << 1) ^ np.uint64(number >> 63)
        size = 0
        while left >= 0x80:
            digits[row, size] = (left & np.uint64(0x7F)) | np.uint64(0x80)
            left >>= np.uint64(7)
            size += 1
        digits[row, size] = left
        sizes[row] = size + 1


@kernel("void(uint8[::1], int64, uint32[::1], uint32[::1])")
def _compress(message: Any, at: Any, state: Any, schedule: Any) -> None:
    """One block of SHA-256 (FIPS 180-4, 6.2.2)."""
    for t in range(16):
        place = at + 4 * t
        schedule[t] = (
            np.uint32(message[place]) << np.uint32(24)
            | np.uint32(message[place + 1]) << np.uint32(16)
            | np.uint32(message[place + 2]) << np.uint32(8)
            | np.uint32(message[place + 3])
        )
    for t in range(16, 64):
        x, y = schedule[t - 15], schedule[t - 2]
        s0 = (
            (x >> np.uint32(7) | x << np.uint32(25))
            ^ (x >> np.uint32(18) | x << np.uint32(14))
            ^ (x >> np.uint32(3))
        )
        s1 = (
            (y >> np.uint32(17) | y << np.uint32(15))
            ^ (y >> np.uint32(19) | y << np.uint32(13))
            ^ (y >> np.uint32(10))
        )
        schedule[t] = np.uint32(schedule[t - 16] + s0 + schedule[t - 7] + s1)
    a, b, c, d = state[0], state[1], state[2], state[3]
    e, f, g, h = state[4], state[5], state[6], state[7]
    for t in range(64):
        s1 = (
            (e >> np.uint32(6) | e << np.uint32(26))
            ^ (e >> np.uint32(11) | e << np.uint32(21))
            ^ (e >> np.uint32(25) | e << np.uint32(7))
        )
        one = np.uint32(h + s1 + ((e & f) ^ (~e & g)) + _ROUNDS[t] + schedule[t])
        s0 = (
            (a >> np.uint32(2) | a << np.uint32(30))
            ^ (a >> np.uint32(13) | a << np.uint32(19))
            ^ (a >> np.uint32(22) | a << np.uint32(10))
        )
        two = np.uint32(s0 + ((a & b) ^ (a & c) ^ (b & c)))
        h, g, f, e = g, f, e, np.uint32(d + one)
        d, c, b, a = c, b, a, np.uint32(one + two)
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e
    state[5] += f
    state[6] += g
    state[7] += h


@kernel(f"void({_BYTES}, {_INTS}, {_INTS}, {_INTS}, {_INTS}, uint8[:, ::1])")
def write_ids(leads: Any, begins: Any, ends: Any, which: Any, offsets: Any, digits: Any) -> None:
    """The first half of the SHA-256, in hex, of a lead and an offset in decimal.

    Args:
        leads: the leads, each from its begin to its end.
        which: by row, the number of its lead.
        offsets: by row, not negative.
        digits: [rows, 32], filled in.
    """
    longest = 0
    for lead in range(len(begins)):
        longest = max(longest, ends[lead] - begins[lead])
    message = np.zeros((longest + _MOST_DECIMALS + 9 + _BLOCK - 1) // _BLOCK * _BLOCK, dtype=np.uint8)
    decimals = np.empty(_MOST_DECIMALS, dtype=np.uint8)
    state = np.empty(8, dtype=np.uint32)
    schedule = np.empty(64, dtype=np.uint32)
    for row in range(len(which)):
        begin = begins[which[row]]
        size = ends[which[row]] - begin
        for place in range(size):
            message[place] = leads[begin + place]
        left, count = offsets[row], 0
        while True:
            decimals[count] = 48 + left % 10
            left //= 10
            count += 1
            if left == 0:
                break
        for place in range(count):
            message[size + place] = decimals[count - 1 - place]
        size += count
        total = (size + 9 + _BLOCK - 1) // _BLOCK * _BLOCK
        message[size] = 0x80
        for place in range(size + 1, total):
            message[place] = 0
        bits = 8 * size
        for place in range(8):
            message[total - 1 - place] = (bits >> (8 * place)) & 0xFF
        state[:] = _START
        for at in range(0, total, _BLOCK):
            _compress(message, at, state, schedule)
        for place in range(digits.shape[1]):
            word = state[place >> 3]
            digits[row, place] = _DIGITS[(word >> np.uint32(28 - 4 * (place & 7))) & np.uint32(0xF)]


@kernel(f"Tuple((uint8[::1], int64[::1]))({_BYTES}, int64[:, ::1], int64[:, ::1])")
def splice(data: Any, begins: Any, sizes: Any) -> Any:
    """The pieces of every row end to end, and where each row ends.

    Args:
        data: what the pieces are of.
        begins, sizes: [pieces, rows], of each piece.
    """
    pieces, rows = begins.shape
    ends = np.empty(rows, dtype=np.int64)
    total = 0
    for row in range(rows):
        for piece in range(pieces):
            total += sizes[piece, row]
        ends[row] = total
    found = np.empty(total, dtype=np.uint8)
    # Numbers without a sign: one that could be negative might count from the end, and be looked at byte by byte.
    at = np.uint64(0)
    for row in range(rows):
        for piece in range(pieces):
            begin, size = np.uint64(begins[piece, row]), np.uint64(sizes[piece, row])
            for place in range(size):
                found[at + place] = data[begin + place]
            at += size
    return found, ends
