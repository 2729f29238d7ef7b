"""The kernel that makes the ids of predictions: SHA-256 of as many rows at once as a processor's registers hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace.kernels.compiler import kernel

_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_INTS = "Array(int64, 1, 'A', readonly=True)"

ID_DIGITS = 32

_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_MOST_DECIMALS = 20
_BLOCK = 64
_LANES = 16
"""Rows side by side: a loop over them is what a compiler makes vector instructions of."""


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


@kernel("void(uint32[::1], uint32[::1])")
def _compress(schedule: Any, v: Any) -> None:
    """One block of SHA-256 (FIPS 180-4, 6.2.2) of each lane, but for the sum at its end.

    Args:
        schedule: [64 words of _LANES], the first 16 of them the block; the others are filled in.
        v: the working variables, [8 of _LANES]. One array, and the rounds move them on within it: so a compiler
            sees that lanes have nothing to do with one another.
    """
    for t in range(16, 64):
        at = t * _LANES
        for lane in range(_LANES):
            x, y = schedule[at - 15 * _LANES + lane], schedule[at - 2 * _LANES + lane]
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
            before = schedule[at - 16 * _LANES + lane] + schedule[at - 7 * _LANES + lane]
            schedule[at + lane] = np.uint32(before + s0 + s1)
    for t in range(64):
        at, constant = t * _LANES, _ROUNDS[t]
        for lane in range(_LANES):
            a, b, c, d = v[lane], v[_LANES + lane], v[2 * _LANES + lane], v[3 * _LANES + lane]
            e, f, g, h = (
                v[4 * _LANES + lane],
                v[5 * _LANES + lane],
                v[6 * _LANES + lane],
                v[7 * _LANES + lane],
            )
            s1 = (
                (e >> np.uint32(6) | e << np.uint32(26))
                ^ (e >> np.uint32(11) | e << np.uint32(21))
                ^ (e >> np.uint32(25) | e << np.uint32(7))
            )
            one = np.uint32(h + s1 + ((e & f) ^ (~e & g)) + constant + schedule[at + lane])
            s0 = (
                (a >> np.uint32(2) | a << np.uint32(30))
                ^ (a >> np.uint32(13) | a << np.uint32(19))
                ^ (a >> np.uint32(22) | a << np.uint32(10))
            )
            v[7 * _LANES + lane], v[6 * _LANES + lane], v[5 * _LANES + lane] = g, f, e
            v[4 * _LANES + lane] = np.uint32(d + one)
            v[3 * _LANES + lane], v[2 * _LANES + lane], v[_LANES + lane] = c, b, a
            v[lane] = np.uint32(one + s0 + ((a & b) ^ (a & c) ^ (b & c)))


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
    longest = (longest + _MOST_DECIMALS + 9 + _BLOCK - 1) // _BLOCK * _BLOCK
    messages = np.zeros((_LANES, longest), dtype=np.uint8)
    blocks = np.zeros(_LANES, dtype=np.int64)
    decimals = np.empty(_MOST_DECIMALS, dtype=np.uint8)
    state = np.empty(8 * _LANES, dtype=np.uint32)
    v = np.empty(8 * _LANES, dtype=np.uint32)
    schedule = np.empty(64 * _LANES, dtype=np.uint32)
    for first in range(0, len(which), _LANES):
        count = min(_LANES, len(which) - first)
        most = 0
        for lane in range(count):
            row = first + lane
            begin = begins[which[row]]
            size = ends[which[row]] - begin
            for place in range(size):
                messages[lane, place] = leads[begin + place]
            left, length = offsets[row], 0
            while True:
                decimals[length] = 48 + left % 10
                left //= 10
                length += 1
                if left == 0:
                    break
            for place in range(length):
                messages[lane, size + place] = decimals[length - 1 - place]
            size += length
            blocks[lane] = (size + 9 + _BLOCK - 1) // _BLOCK
            most = max(most, blocks[lane])
            total = blocks[lane] * _BLOCK
            messages[lane, size] = 0x80
            for place in range(size + 1, total):
                messages[lane, place] = 0
            bits = 8 * size
            for place in range(8):
                messages[lane, total - 1 - place] = (bits >> (8 * place)) & 0xFF
        for word in range(8):
            for lane in range(_LANES):
                state[word * _LANES + lane] = _START[word]
        for block in range(most):
            for lane in range(_LANES):
                for t in range(16):
                    place = block * _BLOCK + 4 * t
                    schedule[t * _LANES + lane] = (
                        np.uint32(messages[lane, place]) << np.uint32(24)
                        | np.uint32(messages[lane, place + 1]) << np.uint32(16)
                        | np.uint32(messages[lane, place + 2]) << np.uint32(8)
                        | np.uint32(messages[lane, place + 3])
                    )
            v[:] = state
            _compress(schedule, v)
            for word in range(8):
                for lane in range(_LANES):
                    if block < blocks[lane]:
                        state[word * _LANES + lane] += v[word * _LANES + lane]
        for lane in range(count):
            for place in range(digits.shape[1]):
                word = state[(place >> 3) * _LANES + lane]
                digits[first + lane, place] = _DIGITS[
                    (word >> np.uint32(28 - 4 * (place & 7))) & np.uint32(0xF)
                ]
