"""A broker's log as it lies on its disk: which producer's transaction each record belongs to, and how that ended.

No consumer tells. Formats: Kafka's documentation, "Implementation: Message Format" (record batches of version 2 and
control records), and the messages of its coordinators: OffsetCommitKey and OffsetCommitValue, TransactionLogKey and
TransactionLogValue.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import lz4.frame

_HEAD = struct.Struct(">qiibIhiqqqhii")  # base offset to number of records
_LENGTH_FROM = 12  # the batch's length counts from behind itself
_TRANSACTIONAL, _CONTROL = 0x10, 0x20
_COMPRESSION, _NONE, _LZ4 = 0x07, 0, 3

End = Literal["commit", "abort"]


class Batch(NamedTuple):
    """Records that a producer sent together, or the marker that ends a transaction in this partition."""

    first: int
    last: int
    appended_ms: int
    producer: int
    epoch: int
    transactional: bool
    end: End | None
    records: bytes


def batches(folder: Path) -> Iterator[Batch]:
    """A partition's batches in order of offset, as far as they are written whole."""
    for segment in sorted(folder.glob("*.log")):
        data = segment.read_bytes()
        at = 0
        while at + _HEAD.size <= len(data):
            first, length, _, magic, _, attributes, delta, _, appended, producer, epoch, _, _ = (
                _HEAD.unpack_from(data, at)
            )
            records = data[at + _HEAD.size : at + _LENGTH_FROM + length]
            if length <= 0 or at + _LENGTH_FROM + length > len(data):
                break  # being written
            assert magic == 2, magic
            compression = attributes & _COMPRESSION
            assert compression in (_NONE, _LZ4), compression
            if compression == _LZ4:
                records = lz4.frame.decompress(records)
            end: End | None = None
            if attributes & _CONTROL:
                key, _ = next(iter(pairs(records)))
                end = "commit" if struct.unpack(">hh", key)[1] else "abort"
            transactional = bool(attributes & _TRANSACTIONAL)
            yield Batch(first, first + delta, appended, producer, epoch, transactional, end, records)
            at += _LENGTH_FROM + length


def pairs(records: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Key and value of each record of a batch."""
    at = 0
    while at < len(records):
        length, at = _number(records, at)
        behind = at + length
        _, at = _number(records, at + 1)  # behind the attributes: the time's difference
        _, at = _number(records, at)  # the offset's
        size, at = _number(records, at)
        key = records[at : at + max(size, 0)]
        size, at = _number(records, at + max(size, 0))
        yield key, None if size < 0 else records[at : at + size]
        at = behind


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A zig-zag number of variable length, and where it ends."""
    encoded = shift = 0
    while True:
        byte = data[at]
        at += 1
        encoded |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (encoded >> 1) ^ -(encoded & 1), at
        shift += 7


class Written(NamedTuple):
    """What one transaction wrote into one partition, and how and when it ended there."""

    producer: int
    epoch: int
    offsets: frozenset[int]
    end: End
    ended_ms: int


def transactions(folder: Path) -> list[Written]:
    """The transactions that wrote into a partition and have ended, in the order of their ends."""
    open_: dict[int, list[Batch]] = {}
    written = []
    for batch in batches(folder):
        if batch.end is None:
            if batch.transactional:
                open_.setdefault(batch.producer, []).append(batch)
        elif mine := open_.pop(batch.producer, None):
            offsets = frozenset(offset for b in mine for offset in range(b.first, b.last + 1))
            written.append(Written(batch.producer, mine[0].epoch, offsets, batch.end, batch.appended_ms))
    return written


class Commit(NamedTuple):
    """Offsets that a group committed with one transaction: by (topic, partition), the next to read."""

    producer: int
    epoch: int
    offsets: dict[tuple[str, int], int]


def commits(logs: Path, group: str) -> list[Commit]:
    """What a group committed, in the order in which it came into force."""
    committed: list[Commit] = []
    for folder in sorted(logs.glob("__consumer_offsets-*")):
        open_: dict[int, Commit] = {}
        for batch in batches(folder):
            if batch.end is not None:
                pending = open_.pop(batch.producer, None)
                if pending is not None and batch.end == "commit":
                    committed.append(pending)
                continue
            offsets = dict(_offsets(batch.records, group))
            if not offsets:
                continue
            if batch.transactional:
                mine = open_.setdefault(batch.producer, Commit(batch.producer, batch.epoch, {}))
                mine.offsets.update(offsets)
            else:
                committed.append(Commit(-1, -1, offsets))
    return committed


def _offsets(records: bytes, group: str) -> Iterator[tuple[tuple[str, int], int]]:
    for key, value in pairs(records):
        version, size = struct.unpack_from(">hh", key)
        if version > 1 or value is None or key[4 : 4 + size] != group.encode():
            continue  # of another kind, or a deletion
        at = 4 + size
        (size,) = struct.unpack_from(">h", key, at)
        topic = key[at + 2 : at + 2 + size].decode()
        (partition,) = struct.unpack_from(">i", key, at + 2 + size)
        yield (topic, partition), struct.unpack_from(">hq", value)[1]


def producer_ids(logs: Path, transactional_id: str) -> set[int]:
    """The ids that the broker ever gave to whoever has this transactional id."""
    ids = set()
    for folder in logs.glob("__transaction_state-*"):
        for batch in batches(folder):
            for key, value in pairs(batch.records) if batch.end is None else ():
                _, size = struct.unpack_from(">hh", key)
                if value is not None and key[4 : 4 + size] == transactional_id.encode():
                    ids.add(struct.unpack_from(">q", value, 2)[0])
    return ids
