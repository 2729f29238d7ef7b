"""The blocks of a plan: made of a partition's messages, and inserted under the plan's token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from tailrace.clickhouse.client import (
    DAMAGED,
    NO_SUCH_COLUMN,
    UNKNOWN_DATABASE,
    UNKNOWN_TABLE,
    QueryFailed,
    RowStore,
)
from tailrace.clickhouse.tables import UNREADABLE
from tailrace.errors import BadRecord, Unavailable
from tailrace.sink.insert import Inserter
from tailrace.sink.partition import MAX_BYTES, BufferedPartition
from tailrace.sink.plan import InsertPlan, make_plan
from tailrace.sink.rows import Row, blocks, unreadable
from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.time_source import WaitingClock
from tailrace.telemetry import metrics


class RowReading(Protocol):
    """What reads messages as rows: `rows.RowReader`."""

    def control(self, messages: Sequence[Message]) -> None: ...
    def topics(self) -> frozenset[str]: ...
    def begin(self) -> None: ...
    def read(self, message: Message) -> Row | None: ...
    def forget_tables(self) -> None: ...


class PlannedBlocks:
    """Makes the blocks of partitions, and inserts them.

    Args:
        restore: makes tables that are missing.
        max_rows: of one plan.
    """

    def __init__(
        self,
        rows: RowReading,
        store: RowStore,
        clock: WaitingClock,
        restore: Callable[[], object],
        max_rows: int,
    ) -> None:
        self._rows = rows
        self._store = store
        self._inserter = Inserter(store, clock)
        self._restore = restore
        self._max_rows = max_rows
        self._is_restored = False

    def restore_tables(self) -> None:
        """Makes what is missing, at first and where something was found to be gone.

        Raises:
            Unavailable: ClickHouse is away.
        """
        if not self._is_restored:
            self._restore()
            self._is_restored = True

    # From messages to blocks ---

    def make(self, tp: TopicPartition, partition: BufferedPartition) -> InsertPlan | None:
        """Makes the blocks of the pending plan; or of a new one, which it gives.

        Raises:
            Unavailable: registry, contracts or ClickHouse are.
        """
        plan = None
        if partition.plan is None:
            rows, plan = self._read_new(tp, partition)
        elif partition.blocks is not None:
            return None
        else:
            planned = [m for m in partition.messages if m.offset() < partition.plan.end]
            rows = [row for m in planned if (row := self._planned_row(partition.plan, m)) is not None]
        partition.blocks = blocks(rows)
        return plan

    def _read_new(self, tp: TopicPartition, partition: BufferedPartition) -> tuple[list[Row], InsertPlan]:
        if partition.unwritable is not None:
            return self._unwritable(partition, partition.unwritable)
        once = self._once_unreadable(tp, partition)
        read: list[tuple[Message, Row | None, bool]] = []
        size = 0
        for message in partition.messages[: partition.limit(self._max_rows)]:
            size += len(message.value() or b"")
            if read and size > MAX_BYTES:
                break
            try:
                if message.offset() in once:
                    raise BadRecord("unreadable", "not readable when it was stored first")
                read.append((message, self._rows.read(message), True))
            except BadRecord as error:
                metrics.UNREADABLE.labels(error.code).inc()
                read.append((message, unreadable(message, error), False))
        plan = make_plan(partition.start, [(message.offset(), good) for message, _, good in read])
        return [row for message, row, _ in read if row is not None and message.offset() < plan.end], plan

    def _unwritable(self, partition: BufferedPartition, reason: str) -> tuple[list[Row], InsertPlan]:
        message = partition.messages[0]
        error = BadRecord("unwritable", reason)
        metrics.UNREADABLE.labels(error.code).inc()
        return [unreadable(message, error)], make_plan(partition.start, [(message.offset(), False)])

    def _once_unreadable(self, tp: TopicPartition, partition: BufferedPartition) -> Collection[int]:
        """Offsets that are stored as unreadable already, as where the group was set back. They stay so: what can be
        read by now would have a second row, in another table.
        """
        try:
            if self._stored(tp, partition, UNREADABLE) < partition.start:
                return ()
            return self._store.offsets(UNREADABLE, *tp, partition.start, partition.next_offset)
        except QueryFailed as failed:
            raise self._dropped(partition, UNREADABLE, failed) from failed

    def _planned_row(self, plan: InsertPlan, message: Message) -> Row | None:
        """The row that whoever has made the plan meant."""
        try:
            row = self._rows.read(message)
        except BadRecord as error:
            if not plan.is_unreadable(message.offset()):
                raise Unavailable(
                    f"{message.topic()}/{message.partition()}/{message.offset()} was readable when it was "
                    f"planned and is not now ({error}): are registry and contracts complete?"
                ) from error
            return unreadable(message, error)
        if plan.is_unreadable(message.offset()):
            return unreadable(message, BadRecord("unreadable", "not readable when it was planned"))
        return row

    # From blocks to tables ---

    def insert(self, tp: TopicPartition, partition: BufferedPartition) -> int | None:
        """Inserts what the plan has left, and gives back its end; None where it waits.

        Raises:
            Unavailable: ClickHouse is away, or has lost a table.
        """
        if partition.plan is None or partition.blocks is None:
            return None
        plan = partition.plan
        for table in sorted(partition.blocks):
            block, token = partition.blocks[table], plan.token(tp)
            try:
                if partition.is_repeat or self._stored(tp, partition, table) >= plan.start:
                    self._inserter.insert_missing(table, block, tp, token)
                else:
                    self._inserter.insert(table, block, token)
            except Unavailable:
                partition.is_repeat = True
                raise
            except QueryFailed as failed:
                raise self._dropped(partition, table, failed) from failed
            del partition.blocks[table]
        return plan.end

    def _stored(self, tp: TopicPartition, partition: BufferedPartition, table: str) -> int:
        stored = partition.stored
        if table not in stored:
            stored[table] = self._store.last_offset(table, *tp)
        return stored[table]

    def _dropped(self, partition: BufferedPartition, table: str, failed: QueryFailed) -> Exception:
        """What to raise: what somebody dropped is made again, as the rows are read again; what is damaged waits."""
        if failed.code in DAMAGED:
            return Unavailable(f"ClickHouse's {table} is damaged, `tailrace rebuild {table}` helps: {failed}")
        if failed.code not in (NO_SUCH_COLUMN, UNKNOWN_TABLE, UNKNOWN_DATABASE):
            return failed
        partition.blocks = None
        partition.is_repeat = True
        partition.stored.clear()
        self._inserter.forget_tables()
        self._rows.forget_tables()
        self._is_restored = False
        return Unavailable(f"ClickHouse has lost what {table} needs: {failed}")
