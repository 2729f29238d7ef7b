"""Fills a table in from the topics, as far as they still hold it, while the sink goes on.

The sink inserts what is beyond the offsets that its group has committed; what is before them is inserted here, where it
has no row. So nobody inserts what the other does. Blocks are cut at fixed offsets and bear tokens made of these, so
that two who rebuild at once insert the same blocks, of which ClickHouse takes each once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

from tailrace.clickhouse.client import ClickHouse, quoted
from tailrace.clickhouse.history import mark_rebuilt
from tailrace.clickhouse.migrations import migrate
from tailrace.clickhouse.tables import UNREADABLE
from tailrace.errors import BadRecord, UsageError
from tailrace.sink.insert import Inserter
from tailrace.sink.rows import Row, blocks, unreadable
from tailrace.streaming.backends.abstract import History, LogReader, read_to_end
from tailrace.streaming.backends.kafka.group_offsets import GroupProgress
from tailrace.streaming.backends.kafka.topics import control_topics
from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.time_source import WaitingClock

BLOCK_OFFSETS = 10_000
MAX_BYTES = 32 << 20


@dataclass
class Rebuilt:
    """What came of it.

    Attributes:
        records: how many were looked at.
        filled: rows that were missing, by table: a topic's records may be in several.
        damaged_parts: parts of the table that were set aside.
        gone: stretches of offsets that a partition holds no longer, with how many rows of them the table has.
        compacted: topics that keep the newest record of each key only.
    """

    table: str
    records: int = 0
    filled: Counter[str] = field(default_factory=Counter)
    damaged_parts: list[str] = field(default_factory=list)
    gone: list[dict[str, Any]] = field(default_factory=list)
    compacted: list[str] = field(default_factory=list)


class TableReading(Protocol):
    """What reads messages as rows: `rows.RowReader`."""

    def tables(self) -> Mapping[str, Sequence[str]]: ...
    def restore_tables(self) -> None: ...
    def begin(self) -> None: ...
    def read(self, message: Message) -> Row | None: ...


class Rebuild:
    """
    Args:
        rows: knows all contracts.
        progress: how far the sink's group has come.
        history: reads stretches of partitions.
    """

    def __init__(
        self,
        clickhouse: ClickHouse,
        rows: TableReading,
        progress: Callable[[], Mapping[TopicPartition, GroupProgress]],
        history: Callable[[History], LogReader],
        clock: WaitingClock,
    ) -> None:
        self._clickhouse = clickhouse
        self._rows = rows
        self._progress = progress
        self._history = history
        self._inserter = Inserter(clickhouse, clock)
        self.tables = rows.tables()

    def offsets(self, table: str) -> dict[TopicPartition, GroupProgress]:
        """What there is to read for a table.

        Raises:
            UsageError: there is no such table.
        """
        return self._of(table, self._progress())

    def _of(
        self, table: str, progress: Mapping[TopicPartition, GroupProgress]
    ) -> dict[TopicPartition, GroupProgress]:
        if table not in self.tables:
            known = ", ".join(sorted(self.tables))
            raise UsageError(
                f"no topic is stored in a table {table!r}; those that can be rebuilt are {known}"
            )
        return {tp: each for tp, each in sorted(progress.items()) if tp.topic in self.tables[table]}

    def run(self, table: str, report: Callable[[int], None]) -> Rebuilt:
        """
        Args:
            report: called with how many offsets were passed.

        Raises:
            UsageError: there is no such table.
            Unavailable: Kafka, registry or ClickHouse is away. It may be run again.
        """
        done = Rebuilt(table)
        progress = self._progress()
        places = self._of(table, progress)
        topics = {tp.topic for tp, each in progress.items() if each.committed > each.earliest}
        migrate(self._clickhouse, stored=topics.__contains__)
        self._rows.restore_tables()
        done.damaged_parts = self._set_damage_aside(table)
        done.gone = [self._gone(table, tp, each.earliest) for tp, each in places.items() if each.earliest]
        self._fill_all(places, done, report)
        # Where the table was lost between an insert of the sink and its commit, its rows are missing just behind.
        later = self.offsets(table)
        known = {tp: each for tp, each in places.items() if tp in later}
        behind = {tp: GroupProgress(each.committed, later[tp].committed) for tp, each in known.items()}
        self._fill_all(behind, done, lambda _: None)
        compacted = {topic.name for topic in control_topics() if topic.cleanup == "compact"}
        done.compacted = sorted(compacted.intersection(self.tables[table]))
        if self._clickhouse.columns(table):
            mark_rebuilt(self._clickhouse, table)
        return done

    def _fill_all(
        self, places: Mapping[TopicPartition, GroupProgress], done: Rebuilt, report: Callable[[int], None]
    ) -> None:
        offsets = 0
        for tp, stretch in places.items():
            for messages in self._read(tp, stretch):
                self._fill(tp, messages, done)
                done.records += len(messages)
                report(offsets + messages[-1].offset() + 1 - stretch.earliest)
            offsets += max(0, stretch.committed - stretch.earliest)
            report(offsets)

    def _set_damage_aside(self, table: str) -> list[str]:
        if not self._clickhouse.columns(table):
            return []
        damaged = self._clickhouse.damaged_parts(table)
        for part in damaged:
            self._clickhouse.command(f"ALTER TABLE {quoted(table)} DETACH PART '{part}'")
        return damaged

    def _gone(self, table: str, tp: TopicPartition, earliest: int) -> dict[str, Any]:
        kept = self._clickhouse.offsets(table, *tp, 0, earliest) if self._clickhouse.columns(table) else ()
        return {**tp._asdict(), "from": 0, "to": earliest - 1, "rows_kept": len(kept)}

    def _read(self, tp: TopicPartition, progress: GroupProgress) -> Iterator[list[Message]]:
        """The records of a partition in blocks, as they are cut."""
        block: list[Message] = []
        size = 0
        with closing(self._history({tp: progress})) as reader:
            for message in read_to_end(reader):
                number = message.offset() // BLOCK_OFFSETS
                if block and (size >= MAX_BYTES or block[0].offset() // BLOCK_OFFSETS != number):
                    yield block
                    block, size = [], 0
                block.append(message)
                size += len(message.value() or b"")
        if block:
            yield block

    def _fill(self, tp: TopicPartition, messages: Sequence[Message], done: Rebuilt) -> None:
        first, last = messages[0].offset(), messages[-1].offset()
        self._rows.begin()
        once = self._clickhouse.offsets(UNREADABLE, *tp, first, last + 1)
        rows: list[Row] = []
        for message in messages:
            try:
                row = None if message.offset() in once else self._rows.read(message)
            except BadRecord as error:
                row = unreadable(message, error)
            rows += [] if row is None else [row]
        for table, block in blocks(self._without_what_was_readable(tp, rows, first, last)).items():
            token = f"rebuild/{tp.topic}/{tp.partition}/{first}/{last}"
            done.filled[table] += self._inserter.insert_missing(table, block, tp, token)

    def _without_what_was_readable(
        self, tp: TopicPartition, rows: list[Row], first: int, last: int
    ) -> list[Row]:
        """A record that cannot be read now and could when it was stored has its row elsewhere."""
        if all(row.layout.table != UNREADABLE for row in rows):
            return rows
        stored: set[int] = set()
        for table, topics in self.tables.items():
            if tp.topic in topics and table != UNREADABLE and self._clickhouse.columns(table):
                stored |= self._clickhouse.offsets(table, *tp, first, last + 1)
        return [row for row in rows if row.layout.table != UNREADABLE or row.message.offset() not in stored]
