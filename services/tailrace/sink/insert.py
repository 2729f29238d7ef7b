"""Blocks into tables, each row once, also where somebody has inserted some of them before."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

from tailrace.clickhouse.client import NO_SUCH_COLUMN, QueryFailed, RowStore
from tailrace.sink.rows import Block
from tailrace.streaming.records import TopicPartition
from tailrace.streaming.time_source import WaitingClock
from tailrace.telemetry import metrics

SETTLE_S = 0.5
"""How long a block is waited for of which ClickHouse has the token and not the rows."""


class Inserter:
    """Inserts blocks, each of one partition's records."""

    def __init__(self, store: RowStore, clock: WaitingClock) -> None:
        self._store = store
        self._clock = clock
        self._types: dict[str, dict[str, str]] = {}

    def forget_tables(self) -> None:
        """After a table that was there is gone: look again."""
        self._types.clear()

    def insert(self, table: str, block: Block, token: str) -> None:
        """A block that nobody has inserted under another token.

        Raises:
            QueryFailed: the table or a column is not there.
            Unavailable: ClickHouse is away; whether it has the block is not known.
        """
        types = self._types_of(table, block)
        started = self._clock.perf_ns()
        self._store.insert(table, block, types, token)
        metrics.INSERT_SECONDS.observe((self._clock.perf_ns() - started) / 1e9)

    def insert_missing(self, table: str, block: Block, tp: TopicPartition, token: str) -> int:
        """A block of which rows may be there already. Looks whether all are there in the end, and says how many were
        missing at first.

        The token alone does not do: a ClickHouse that is killed while it takes a block can remember the token
        and not have the rows, since it writes the token first. What is still missing then goes in under the
        next token; the tokens follow each other, so that whoever repeats the block tries the same ones.

        Raises:
            QueryFailed, Unavailable: as `insert`.
        """
        first = 0
        for attempt in count():
            missing = self._missing(table, block, tp)
            if missing and attempt:
                # Not while the server may be between token and rows.
                self._clock.sleep(SETTLE_S)
                missing = self._missing(table, block, tp)
            if not attempt:
                first = len(missing.get("_offset", ()))
            if not missing:
                return first
            self.insert(table, missing, token + (f"/{attempt}" if attempt else ""))
            if self._store.is_replicated(table):
                # Tokens and rows are one there; and a replica may not show yet what another has taken.
                return first
        raise AssertionError("unreachable")

    def _missing(self, table: str, block: Block, tp: TopicPartition) -> Block:
        """What of the block has no row; empty where nothing is missing."""
        offsets = block["_offset"]
        stored = self._store.offsets(table, *tp, min(offsets), max(offsets) + 1)
        missing = [index for index, offset in enumerate(offsets) if offset not in stored]
        if len(missing) == len(offsets):
            return block
        return {name: [values[i] for i in missing] for name, values in block.items()} if missing else {}

    def _types_of(self, table: str, columns: Collection[str]) -> dict[str, str]:
        types = self._types.get(table, {})
        if not types.keys() >= set(columns):
            types = self._types[table] = self._store.columns(table)
        if missing := set(columns) - types.keys():
            raise QueryFailed(f"{table} lacks {', '.join(sorted(missing))}", NO_SUCH_COLUMN, None)
        return types
