"""Hashes of whole columns, the same on every machine: where keys and sources lie between 0 and 1.

The mixing is SplitMix64's (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014): number n
of the stream that a salt begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.avro.columns.bytes_column import BytesColumn, Ints
from tailrace.avro.columns.bytes_kernels import checksums
from tailrace.avro.columns.numbering import distinct_numbers

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def key_positions(keys: Sequence[bytes], salt: str) -> NDArray[np.float64]:
    """Where each key lies in [0, 1): evenly spread, and under each salt as if drawn anew."""
    column = keys if isinstance(keys, BytesColumn) else BytesColumn.of(keys)
    return _positions(checksums(column.bytes, column.begins, column.ends), _start(salt))


def source_positions(what: str, topic: str, partitions: Ints, offsets: Ints) -> NDArray[np.float64]:
    """Where each source lies in [0, 1), for each purpose as if drawn anew."""
    different, which = distinct_numbers(partitions)
    starts = np.array([_start(f"{what}|{topic}/{p}") for p in different.tolist()], dtype=np.uint64)
    return _positions(offsets.astype(np.uint64), starts[which])


def _start(salt: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "big"))


def _positions(numbers: NDArray[np.uint64], start: np.uint64 | NDArray[np.uint64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        mixed = start + (numbers + np.uint64(1)) * _GAMMA
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
