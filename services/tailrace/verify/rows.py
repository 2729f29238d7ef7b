"""What ClickHouse holds of each topic, by the coordinates that every row carries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tailrace.clickhouse.client import ClickHouse, quoted
from tailrace.streaming.records import TopicPartition as Partition
from tailrace.verify.check import Offsets
from tailrace.verify.log import OffsetRange


class Digest(NamedTuple):
    """A partition's offsets in brief; two sets of offsets that differ in one place differ here."""

    rows: int
    distinct: int
    total: int
    xor: int

    @classmethod
    def of(cls, offsets: Offsets) -> Digest:
        """Of the offsets of events, each there once."""
        n = len(offsets)
        return cls(n, n, int(offsets.sum()), int(np.bitwise_xor.reduce(offsets, initial=0)))


NOTHING = Digest(0, 0, 0, 0)


NO_TIME = -(2**63)
"""Stands for no time among times."""


class StoredRows:
    """Rows of every table that keeps events: those with ``_topic``, ``_partition``, ``_offset``."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    def digests(self, ranges: Mapping[Partition, OffsetRange]) -> dict[Partition, Digest]:
        """What is stored of each partition, within the offsets that were read of it."""
        digests: dict[Partition, Digest] = defaultdict(lambda: NOTHING)
        topics = {p.topic for p in ranges}
        for table in self._tables():
            sql = (
                "SELECT _topic, _partition, count(), uniqExact(_offset), sum(toInt64(_offset)), "  # noqa: S608
                f"groupBitXor(toInt64(_offset)) FROM {table} WHERE {_within(ranges)} "
                "GROUP BY _topic, _partition"
            )
            for topic, partition, *digest in self._clickhouse.query(sql).rows:
                if topic in topics:
                    one, other = digests[Partition(topic, partition)], Digest(*map(int, digest))
                    # A sum of distinct counts: a row in two tables of one topic is a row too many as well.
                    rows, distinct, total = (a + b for a, b in zip(one[:3], other[:3], strict=True))
                    digests[Partition(topic, partition)] = Digest(rows, distinct, total, one.xor ^ other.xor)
        return dict(digests)

    def offsets(self, partition: Partition, within: OffsetRange) -> Offsets:
        """The offset of every row of a partition."""
        offsets: list[int] = []
        for table in self._tables():
            sql = f"SELECT _offset FROM {table} WHERE {_within({partition: within})}"  # noqa: S608
            offsets += [int(offset) for (offset,) in self._clickhouse.query(sql).rows]
        return np.sort(np.array(offsets, dtype=np.int64))

    def times(self, partition: Partition, columns: Sequence[str], first: int, last: int) -> Offsets:
        """Of a partition's rows from one offset to another, both included: offsets and the times of columns (ms
        since 1970, `NO_TIME` for none), a row each.
        """
        times: list[tuple[int, ...]] = []
        within = _within({partition: OffsetRange(first, last + 1)})
        of = "".join(f", ifNull(toUnixTimestamp64Milli({quoted(column)}), {NO_TIME})" for column in columns)
        for table in self._tables(*columns):
            sql = f"SELECT _offset{of} FROM {table} WHERE {within}"  # noqa: S608
            times += [tuple(map(int, row)) for row in self._clickhouse.query(sql).rows]
        return np.array(times, dtype=np.int64).reshape(-1, 1 + len(columns))

    def _tables(self, *also: str) -> list[str]:
        names = ("_topic", "_partition", "_offset", *also)
        listed = ", ".join(f"'{name}'" for name in names)
        tables = self._clickhouse.query(
            f"SELECT table FROM system.columns WHERE database = {{database:String}} AND name IN ({listed}) "  # noqa: S608
            f"GROUP BY table HAVING count() = {len(names)} ORDER BY table",
            {"database": self._clickhouse.database},
        )
        return [f"{quoted(self._clickhouse.database)}.{quoted(table)}" for (table,) in tables.rows]


def _within(ranges: Mapping[Partition, OffsetRange]) -> str:
    topics: dict[str, list[str]] = defaultdict(list)
    for partition, (low, end) in ranges.items():
        part = f"(_partition = {partition.partition} AND _offset >= {low} AND _offset < {end})"
        topics[partition.topic].append(part)
    # Topic names are Kafka's: letters, digits, dots, dashes and underscores.
    return " OR ".join(f"(_topic = '{topic}' AND ({' OR '.join(parts)}))" for topic, parts in topics.items())
