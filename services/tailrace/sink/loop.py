"""Plan, insert, commit: how records come into ClickHouse exactly once though it knows nothing of Kafka.

For each partition in turn: commit the unchanged offset with the plan as its metadata; insert the plan's records,
one block for each table, under the plan's token; commit the plan's end. A process that dies in between leaves the
plan, and whoever owns the partition next repeats it to the letter, under the same token, of which ClickHouse takes
a block once. A process that was only thought dead can do no more than repeat it too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
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
from tailrace.contracts.records.lanes import CONTRACTS
from tailrace.errors import BadRecord, Unavailable
from tailrace.sink.insert import Inserter
from tailrace.sink.plan import InsertPlan, make_plan
from tailrace.sink.rows import Block, Row, blocks, unreadable
from tailrace.streaming.backends.abstract import Abortable, Backend, Committed, Consumer, LogError
from tailrace.streaming.consumer_loop import ConsumerLoop, Stopping
from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.time_source import WaitingClock
from tailrace.telemetry import metrics
from tailrace.telemetry.reasons import waiting_for

log = logging.getLogger(__name__)

MAX_ROWS = 20_000
"""Records in one block, at most: far below where ClickHouse would split it."""
MAX_BYTES = 32 * 1024 * 1024
MOST_BYTES = 4 * MAX_BYTES
"""Of all partitions together, before nothing more is read."""
STEP_S = 5.0
"""After so long in one turn, what is due of further partitions is left to the next."""
LINGER_S = 1.0
"""How long a record waits for company. ClickHouse likes few large blocks; people like to see what happens."""
IDLE_WAIT_S = 0.05
RETRY_S = (0.2, 5.0)
"""How long is waited before what failed is tried again: at first, and at most, doubling."""


class RowReading(Protocol):
    """What reads messages as rows: `rows.RowReader`."""

    def control(self, messages: Sequence[Message]) -> None: ...
    def topics(self) -> frozenset[str]: ...
    def begin(self) -> None: ...
    def read(self, message: Message) -> Row | None: ...
    def forget_tables(self) -> None: ...


@dataclass(slots=True)
class _Partition:
    """A partition that this instance owns.

    Attributes:
        start: the committed offset.
        plan: the plan committed with it, where one is pending.
        is_new: the group has not committed any offset yet.
        messages: what was read from ``start`` on.
        size: their bytes.
        since_ns: when the first of them was read.
        blocks: those of the plan that are still to be inserted, by table; None until they are made.
        is_repeat: some of the plan's blocks may have been inserted by somebody who did not learn of it.
        stored: of each table, the last offset that had a row in it when this instance first looked.
        trouble: why the partition waits, where it does.
        retry_at: when it is tried again.
        retry_s: how long it waits the next time.
    """

    start: int
    plan: InsertPlan | None
    is_new: bool
    messages: list[Message] = field(default_factory=list)
    size: int = 0
    since_ns: int = 0
    blocks: dict[str, Block] | None = None
    is_repeat: bool = False
    stored: dict[str, int] = field(default_factory=dict)
    trouble: str | None = None
    retry_at: int = 0
    retry_s: float = RETRY_S[0]

    @property
    def next_offset(self) -> int:
        return self.messages[-1].offset() + 1 if self.messages else self.start

    def is_full(self) -> bool:
        return len(self.messages) >= MAX_ROWS or self.size >= MAX_BYTES


class Sink(ConsumerLoop):
    """Brings every topic that ``rows`` names into ``store``.

    Args:
        restore: makes tables that are missing; called once all contracts are known.
        stop: set when the process is to end; whatever waits then gives up.
    """

    def __init__(
        self,
        backend: Backend,
        rows: RowReading,
        store: RowStore,
        *,
        group: str,
        clock: WaitingClock,
        restore: Callable[[], object] = lambda: None,
        stop: Event | None = None,
        linger_s: float = LINGER_S,
        max_rows: int = MAX_ROWS,
    ) -> None:
        super().__init__(backend, group=group, clock=clock, stop=stop)
        self._rows = rows
        self._store = store
        self._restore = restore
        self._linger_ns = int(linger_s * 1e9)
        self._max_rows = max_rows

        self._restored = False
        self._inserter = Inserter(store, clock)
        self._owned: dict[TopicPartition, _Partition] = {}
        self._paused: set[TopicPartition] = set()

    # The turn ---

    def _turn(self) -> None:
        try:
            self._take_turn()
        except Unavailable as away:
            self._wait(str(away), RETRY_S[0])
        except Abortable as reason:
            log.warning("no longer in the group", extra={"reason": str(reason)})
            self._start_over()

    def _take_turn(self) -> None:
        if not self._take_contracts():
            return
        if not self._restored:
            self._restore()
            self._restored = True
        self._subscribe(self._rows.topics())
        if self._consumer is None:
            self._wait(self._reason(), IDLE_WAIT_S)
            return
        self._rewind(self._consumer)
        self._fetch(self._consumer)
        self._work(self._consumer)
        self._pause_full(self._consumer)
        self.waiting = self._reason()
        self._measure(self._consumer)

    def _positions(self) -> Mapping[TopicPartition, int]:
        return {tp: partition.next_offset for tp, partition in self._owned.items()}

    def _committed(self) -> Mapping[TopicPartition, int]:
        return {tp: partition.start for tp, partition in self._owned.items()}

    def _take_contracts(self) -> bool:
        """Follows the contracts; False until all that there were are known."""
        if not self._read_control([CONTRACTS]):
            return False
        self._primed = True
        if self._control:
            self._rows.control(self._control)
            self._control = []
        return True

    # Partitions ---

    def on_assign(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to go on: with the pending plan, where there is one."""
        assert self._consumer is not None
        self._rebalanced = True
        self._member = self._consumer.member_id()
        self._take_over(self._consumer, partitions)
        return {tp: self._owned[tp].start for tp in partitions}

    def on_revoke(self, partitions: Collection[TopicPartition]) -> None:
        """What was planned and not done is left to the next owner."""
        self._rebalanced = True
        for tp in partitions:
            self._owned.pop(tp, None)
            self._rewinding.discard(tp)
            self._paused.discard(tp)
        self._measure_no_more(partitions)

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        self._member = ""
        self.on_revoke(partitions)

    def _take_over(self, consumer: Consumer, partitions: Collection[TopicPartition]) -> None:
        for tp, committed in self._ask_committed(consumer, partitions).items():
            if committed is None:
                start = self._patiently(consumer.earliest, tp)
                self._owned[tp] = _Partition(start, None, is_new=True)
            else:
                plan = InsertPlan.unpack(committed.offset, committed.metadata)
                self._owned[tp] = _Partition(committed.offset, plan, is_new=False, is_repeat=plan is not None)

    def _start_over(self) -> None:
        """After a commit that did not go through: what is owned is taken over as a new owner would."""
        if self._consumer is not None and self._owned:
            try:
                self._take_over(self._consumer, list(self._owned))
            except Stopping:
                return
            self._rewinding.update(self._owned)

    def _pause_full(self, consumer: Consumer) -> None:
        full = {tp for tp, partition in self._owned.items() if partition.is_full()}
        if sum(partition.size for partition in self._owned.values()) >= MOST_BYTES:
            # What is planned has to be read to its end.
            full |= {tp for tp, partition in self._owned.items() if partition.plan is None}
        if full - self._paused:
            consumer.pause(full - self._paused)
        if self._paused - full:
            consumer.resume(self._paused - full)
        self._paused = full

    def _fetch(self, consumer: Consumer) -> None:
        self._rebalanced = False
        try:
            messages = consumer.consume(self._max_rows, 0 if self._due() else IDLE_WAIT_S)
        except LogError:
            # What had been fetched before it failed is gone from the client.
            self._rewinding.update(self._owned)
            raise
        if self._rebalanced:
            # Which messages were read before the partitions moved, and which after, is not known.
            self._rewinding.update(self._owned)
            return
        now = self._clock.perf_ns()
        for message in messages:
            tp = TopicPartition(message.topic(), message.partition())
            partition = self._owned.get(tp)
            if partition is None or tp in self._rewinding or message.offset() < partition.next_offset:
                continue
            if not partition.messages:
                partition.since_ns = now
            partition.messages.append(message)
            partition.size += len(message.value() or b"")

    # Plan, insert, commit ---

    def _due(self) -> list[TopicPartition]:
        """Partitions of which something can be inserted now; first what waits for longest."""
        now = self._clock.perf_ns()
        due = [tp for tp, partition in self._owned.items() if self._is_due(partition, now)]
        return sorted(due, key=lambda tp: (self._owned[tp].since_ns, tp))

    def _is_due(self, partition: _Partition, now: int) -> bool:
        if not partition.messages or now < partition.retry_at:
            return False
        if partition.plan is not None:
            return partition.blocks is not None or partition.messages[-1].offset() >= partition.plan.end - 1
        return partition.is_full() or now - partition.since_ns >= self._linger_ns

    def _work(self, consumer: Consumer) -> None:
        self._commit_starts(consumer)
        due = self._due()
        if not due:
            return
        self._rows.begin()
        plans: dict[TopicPartition, InsertPlan] = {}
        until = self._clock.perf_ns() + int(STEP_S * 1e9)
        size = 0
        for at, tp in enumerate(due):
            size += self._owned[tp].size
            if at and (size > MOST_BYTES or self._clock.perf_ns() > until):
                due = due[:at]
                break
            try:
                self._prepare(tp, plans)
            except Unavailable as away:
                # One time-out a turn is enough: the others find out for themselves in later turns.
                self._hold(self._owned[tp], away)
                break
        if plans:
            self._commit(consumer, {tp: Committed(plan.start, plan.pack()) for tp, plan in plans.items()})
            for tp, plan in plans.items():
                self._owned[tp].plan = plan
        ends: dict[TopicPartition, int] = {}
        for at, tp in enumerate(due):
            if at and self._clock.perf_ns() > until:
                break
            try:
                end = self._insert(tp)
            except Unavailable as away:
                self._hold(self._owned[tp], away)
                break
            if end is not None:
                ends[tp] = end
        if ends:
            self._commit(consumer, {tp: Committed(end) for tp, end in ends.items()})
            for tp, end in ends.items():
                self._advance(tp, end)

    def _commit_starts(self, consumer: Consumer) -> None:
        """A group that has committed nothing of a partition would have to guess where to start again."""
        starts = {tp: Committed(p.start) for tp, p in self._owned.items() if p.is_new}
        if starts:
            self._commit(consumer, starts)
            for tp in starts:
                self._owned[tp].is_new = False

    def _prepare(self, tp: TopicPartition, plans: dict[TopicPartition, InsertPlan]) -> None:
        """Makes the blocks of the pending plan, or of a new one."""
        partition = self._owned[tp]
        if partition.plan is not None:
            if partition.blocks is not None:
                return
            rows = self._read_planned(partition.plan, partition.messages)
        else:
            rows, plan = self._read_new(tp, partition)
            plans[tp] = plan
        partition.blocks = blocks(rows)

    def _read_new(self, tp: TopicPartition, partition: _Partition) -> tuple[list[Row], InsertPlan]:
        once = self._once_unreadable(tp, partition)
        read: list[tuple[Message, Row | None, bool]] = []
        size = 0
        for message in partition.messages[: self._max_rows]:
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

    def _once_unreadable(self, tp: TopicPartition, partition: _Partition) -> Collection[int]:
        """Offsets that are stored as unreadable already, as where the group was set back. They stay so: what can be
        read by now would have a second row, in another table.
        """
        try:
            if self._stored(tp, UNREADABLE) < partition.start:
                return ()
            return self._store.offsets(UNREADABLE, *tp, partition.start, partition.next_offset)
        except QueryFailed as failed:
            raise self._dropped(partition, UNREADABLE, failed) from failed

    def _stored(self, tp: TopicPartition, table: str) -> int:
        stored = self._owned[tp].stored
        if table not in stored:
            stored[table] = self._store.last_offset(table, *tp)
        return stored[table]

    def _read_planned(self, plan: InsertPlan, messages: Sequence[Message]) -> list[Row]:
        rows = []
        for message in messages:
            if message.offset() >= plan.end:
                break
            try:
                row = self._rows.read(message)
            except BadRecord as error:
                if not plan.is_unreadable(message.offset()):
                    raise Unavailable(
                        f"{message.topic()}/{message.partition()}/{message.offset()} was readable when it was "
                        f"planned and is not now ({error}): are registry and contracts complete?"
                    ) from error
                row = unreadable(message, error)
            else:
                if plan.is_unreadable(message.offset()):
                    row = unreadable(message, BadRecord("unreadable", "not readable when it was planned"))
            if row is not None:
                rows.append(row)
        return rows

    def _insert(self, tp: TopicPartition) -> int | None:
        """Inserts what the plan has left, and gives back its end; None where it waits."""
        partition = self._owned[tp]
        if partition.plan is None or partition.blocks is None:
            return None
        for table in sorted(partition.blocks):
            block = partition.blocks[table]
            try:
                self._insert_block(tp, partition.plan, table, block)
            except Unavailable:
                partition.is_repeat = True
                raise
            except QueryFailed as failed:
                raise self._dropped(partition, table, failed) from failed
            del partition.blocks[table]
        return partition.plan.end

    def _dropped(self, partition: _Partition, table: str, failed: QueryFailed) -> Exception:
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
        self._restored = False
        return Unavailable(f"ClickHouse has lost what {table} needs: {failed}")

    def _insert_block(self, tp: TopicPartition, plan: InsertPlan, table: str, block: Block) -> None:
        if self._owned[tp].is_repeat or self._stored(tp, table) >= plan.start:
            self._inserter.insert_missing(table, block, tp, plan.token(tp))
        else:
            self._inserter.insert(table, block, plan.token(tp))

    def _commit(self, consumer: Consumer, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commits as the member that took the partitions over; raises ``Abortable`` where it is that no more."""
        started = self._clock.perf_ns()

        def commit() -> None:
            self._check_member(consumer)
            consumer.commit(offsets)
            # A group without members takes commits from anybody. A client that learns in this very moment that
            # it was expelled commits as such a stranger; so nothing is inserted on the strength of its plan.
            self._check_member(consumer)

        self._patiently(commit)
        self._note_committed(offsets)
        metrics.COMMIT_SECONDS.observe((self._clock.perf_ns() - started) / 1e9)

    def _check_member(self, consumer: Consumer) -> None:
        if not self._member or consumer.member_id() != self._member:
            raise Abortable("no longer the member of the group that took the partitions over")

    def _advance(self, tp: TopicPartition, end: int) -> None:
        old = self._owned[tp]
        done = sum(1 for message in old.messages if message.offset() < end)
        rest = old.messages[done:]
        new = _Partition(end, None, is_new=False, messages=rest, since_ns=self._clock.perf_ns())
        new.stored = old.stored
        new.size = sum(len(message.value() or b"") for message in rest)
        self._owned[tp] = new
        metrics.BATCHES.inc()
        metrics.RECORDS.labels(tp.topic).inc(done)
        if done:
            metrics.WATERMARK.labels(tp.topic, str(tp.partition)).set(
                old.messages[done - 1].timestamp()[1] / 1000
            )

    # What others see of it ---

    def _hold(self, partition: _Partition, away: Unavailable) -> None:
        """What is away for the moment holds up its partition; it is tried again later and later."""
        partition.trouble = str(away)
        partition.retry_at = self._clock.perf_ns() + int(partition.retry_s * 1e9)
        partition.retry_s = min(2 * partition.retry_s, RETRY_S[1])

    def _reason(self) -> str | None:
        not_in_place = self._not_in_place(self._rows.topics())
        if not_in_place is not None:
            return not_in_place
        return waiting_for((tp.topic, p.trouble) for tp, p in self._owned.items() if p.trouble)
