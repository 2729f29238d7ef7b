"""Which partitions many keys belong to, at once. The reference is streaming/partitioner.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.streaming.partitioner import partition_of

_M = np.uint32(0x5BD1E995)
_FEW = 8


def partitions_of(keys: Sequence[bytes], partitions: int) -> list[int]:
    """The partition of each key, as `partition_of` says."""
    if partitions == 1:
        return [0] * len(keys)
    rows_by_length: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        rows_by_length.setdefault(len(key), []).append(row)
    numbers = [0] * len(keys)
    for length, rows in rows_by_length.items():
        if len(rows) < _FEW or not length:
            for row in rows:
                numbers[row] = partition_of(keys[row], partitions)
            continue
        data = np.frombuffer(b"".join([keys[row] for row in rows]), dtype=np.uint8)
        hashes = _murmur2(data.reshape(len(rows), length)) & np.uint32(0x7FFFFFFF)
        for row, number in zip(rows, (hashes % np.uint32(partitions)).tolist(), strict=True):
            numbers[row] = number
    return numbers


def _murmur2(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The hash of each row."""
    length = data.shape[1]
    h = np.full(len(data), 0x9747B28C ^ length, dtype=np.uint32)
    whole = length & ~3
    words = np.ascontiguousarray(data[:, :whole]).view("<u4")
    for column in range(whole // 4):
        k = words[:, column] * _M
        k = (k ^ (k >> np.uint32(24))) * _M
        h = (h * _M) ^ k
    if whole < length:
        rest = np.zeros(len(data), dtype=np.uint32)
        for place in range(whole, length):
            rest |= data[:, place].astype(np.uint32) << np.uint32(8 * (place - whole))
        h = (h ^ rest) * _M
    h = (h ^ (h >> np.uint32(13))) * _M
    return h ^ (h >> np.uint32(15))
