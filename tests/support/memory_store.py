"""ClickHouse's part in a plan, insert, commit: tables of rows, and tokens under which a block counts once."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from tailrace.clickhouse.client import NO_SUCH_COLUMN, UNKNOWN_TABLE, QueryFailed
from tailrace.errors import Unavailable
from tailrace.streaming.backends.memory.log import MemoryLog

COORDINATES = ("_topic", "_partition", "_offset")


class MemoryStore:
    """The server. Rows are never merged: one that comes in twice is there twice.

    Args:
        columns: of each table, the names.
        window: of how many blocks of a table the tokens are remembered.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], window: int = 10_000) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {table: [] for table in columns}
        self.types = {
            table: dict.fromkeys([*COORDINATES, "_time", *names], "Any") for table, names in columns.items()
        }
        self.tokens: dict[str, list[str]] = {table: [] for table in columns}
        self.window = window
        self.repeated = 0  # blocks whose token was known
        self.looked = 0  # times that somebody asked what is there

    def command(self, sql: str) -> None:
        """Runs what `clickhouse.tables` says: CREATE TABLE IF NOT EXISTS, and ALTER TABLE ADD COLUMN IF NOT EXISTS."""
        table, names = sql.split("`")[1], sql.split("`")[3::2]
        self.tables.setdefault(table, [])
        self.tokens.setdefault(table, [])
        types = (part.strip().partition("\n")[0].rstrip(",") for part in sql.split("`")[4::2])
        self.types.setdefault(table, {}).update(zip(names, types, strict=True))

    def coordinates(self, table: str) -> list[tuple[str, int, int]]:
        return [tuple(row[name] for name in COORDINATES) for row in self.tables[table]]  # type: ignore[misc]

    def take(self, table: str, columns: Mapping[str, Sequence[Any]], token: str) -> None:
        if table not in self.tables:
            raise QueryFailed(f"no table {table}", UNKNOWN_TABLE, "UNKNOWN_TABLE")
        if not columns.keys() <= self.types[table].keys():
            raise QueryFailed(f"{table} lacks columns", NO_SUCH_COLUMN, "NO_SUCH_COLUMN")
        lengths = {len(values) for values in columns.values()}
        assert len(lengths) == 1, "columns of one length"
        if token in self.tokens[table]:
            self.repeated += 1
            return
        self.tokens[table] = [*self.tokens[table], token][-self.window :]
        names = list(columns)
        self.tables[table] += [
            dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]


class StoreClient:
    """One process's way to the server: each call may fail, stall, or kill the process, as the log's calls do.

    An insert may fail with the block taken or not, and the client cannot tell.
    """

    def __init__(
        self, store: MemoryStore, log: MemoryLog, name: str, rng: random.Random, trouble: float
    ) -> None:
        self._store = store
        self._log = log
        self._name = name
        self._rng = rng
        self.trouble = trouble

    def columns(self, table: str) -> dict[str, str]:
        self._fail("columns")
        return dict(self._store.types.get(table, {}))

    def command(self, sql: str) -> None:
        self._fail("command")
        self._store.command(sql)

    def insert(
        self, table: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], token: str
    ) -> None:
        fault = self._fail("insert")
        if self._rng.random() < self.trouble / 4 and token not in self._store.tokens[table]:
            # The server is killed while it takes the block: it writes the token first.
            self._store.tokens[table].append(token)
            raise Unavailable("ClickHouse was killed")
        self._store.take(table, columns, token)
        if fault is not None:
            raise fault
        if self._rng.random() < self.trouble / 2:
            raise Unavailable("the answer to the insert was lost")

    def last_offset(self, table: str, topic: str, partition: int) -> int:
        self._fail("last_offset")
        return max((c[2] for c in self._store.coordinates(table) if c[:2] == (topic, partition)), default=-1)

    def offsets(self, table: str, topic: str, partition: int, start: int, end: int) -> set[int]:
        self._fail("offsets")
        self._store.looked += 1
        mine = (c[2] for c in self._store.coordinates(table) if c[:2] == (topic, partition))
        return {offset for offset in mine if start <= offset < end}

    def is_replicated(self, table: str) -> bool:
        return False

    def _fail(self, call: str) -> BaseException | None:
        fault = self._log.call(self._name, call)
        if self._rng.random() < self.trouble / 2:
            raise Unavailable(f"ClickHouse is away ({call})")
        return None if fault is None else fault.error
