"""Hashes of whole columns, the same on every machine: where keys and sources lie between 0 and 1.

The mixing is SplitMix64's (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014): number n
of the stream that a salt begins.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def key_positions(keys: Sequence[bytes], salt: str) -> NDArray[np.float64]:
    """Where each key lies in [0, 1): evenly spread, and under each salt as if drawn anew."""
    sums = np.fromiter(map(zlib.crc32, keys), dtype=np.uint64, count=len(keys))
    return positions(sums, salt)


def positions(numbers: NDArray[np.uint64], salt: str) -> NDArray[np.float64]:
    """Where each number lies in [0, 1) under a salt."""
    start = np.uint64(int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "big"))
    with np.errstate(over="ignore"):
        mixed = start + (numbers + np.uint64(1)) * _GAMMA
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
