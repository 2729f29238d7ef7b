"""Plan, insert, commit: how records come into ClickHouse exactly once though it knows nothing of Kafka.

For each partition in turn: commit the unchanged offset with the plan as its metadata; insert the plan's records,
one block for each table, under the plan's token; commit the plan's end. A process that dies in between leaves the
plan, and whoever owns the partition next repeats it to the letter, under the same token, of which ClickHouse takes
a block once. A process that was only thought dead can do no more than repeat it too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Event

from tailrace.clickhouse.client import RowStore
from tailrace.contracts.records.lanes import CONTRACTS
from tailrace.errors import Unavailable
from tailrace.sink.partition import MAX_BYTES, MAX_ROWS, RETRY_S, BufferedPartition
from tailrace.sink.plan import InsertPlan
from tailrace.sink.planned_blocks import PlannedBlocks, RowReading
from tailrace.sink.unwritable import Report, may_be_of_a_record, narrow_down
from tailrace.streaming.backends.abstract import (
    Abortable,
    Backend,
    Committed,
    Consumer,
    LogError,
    Retriable,
)
from tailrace.streaming.consumer_loop import ConsumerLoop, Stopping
from tailrace.streaming.crash_history import NO_DEATHS
from tailrace.streaming.records import TopicPartition
from tailrace.streaming.time_source import WaitingClock
from tailrace.telemetry import metrics
from tailrace.telemetry.reasons import waiting_for

log = logging.getLogger(__name__)

MOST_BYTES = 4 * MAX_BYTES
"""Of all partitions together, before nothing more is read."""
STEP_S = 5.0
"""After so long in one turn, what is due of further partitions is left to the next."""
LINGER_S = 1.0
"""How long a record waits for company. ClickHouse likes few large blocks; people like to see what happens."""
IDLE_WAIT_S = 0.05


class Sink(ConsumerLoop):
    """Brings every topic that ``rows`` names into ``store``.

    Args:
        restore: makes tables that are missing; called once all contracts are known.
        report: tells people of a record that cannot be written.
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
        report: Report = lambda message, reason: None,
        stop: Event | None = None,
        linger_s: float = LINGER_S,
        max_rows: int = MAX_ROWS,
    ) -> None:
        super().__init__(backend, group=group, clock=clock, stop=stop)
        self._rows = rows
        self._report = report
        self._blocks = PlannedBlocks(rows, store, clock, restore, max_rows)
        self._linger_ns = int(linger_s * 1e9)
        self._max_rows = max_rows

        self._owned: dict[TopicPartition, BufferedPartition] = {}
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
        self._blocks.restore_tables()
        self._subscribe(self._rows.topics())
        if self._consumer is None:
            self._wait(self._reason(), IDLE_WAIT_S)
            return
        self._rewind(self._consumer)
        self._fetch(self._consumer)
        self._insert_due(self._consumer)
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
                self._owned[tp] = BufferedPartition(start, None, is_new=True)
            else:
                self._owned[tp] = BufferedPartition.of(committed)

    def _start_over(self) -> None:
        """After a commit that did not go through: what is owned is taken over as a new owner would."""
        if self._consumer is not None and self._owned:
            before = self._owned.copy()
            try:
                self._take_over(self._consumer, list(before))
            except Stopping:
                return
            for tp, partition in before.items():
                # What this process has announced, it did not die of.
                if partition.is_announced and partition.start == self._owned[tp].start:
                    self._owned[tp].history = partition.history
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
            partition.take(message, now)

    # Plan, insert, commit ---

    def _due(self) -> list[TopicPartition]:
        """Partitions of which something can be inserted now; first what waits for longest."""
        now = self._clock.perf_ns()
        due = [tp for tp, partition in self._owned.items() if partition.is_due(now, self._linger_ns)]
        # Where a record is looked for that stops processes, no record of another partition is to be suspected.
        alone = [tp for tp in due if self._owned[tp].history.alone]
        if alone:
            return [max(alone, key=lambda tp: self._owned[tp].history.deaths)]
        return sorted(due, key=lambda tp: (self._owned[tp].since_ns, tp))

    def _insert_due(self, consumer: Consumer) -> None:
        self._commit_starts(consumer)
        due = self._due()
        if not due:
            return
        until = self._clock.perf_ns() + int(STEP_S * 1e9)
        self._announce(consumer, due)
        try:
            self._work_off(consumer, due, until)
        except Exception as error:
            if not may_be_of_a_record(error) and (
                not isinstance(error, LogError) or isinstance(error, Retriable)
            ):
                self._take_back(consumer, due)
            raise
        self._take_back(consumer, due)

    def _work_off(self, consumer: Consumer, due: list[TopicPartition], until: int) -> None:
        planned, plans = self._plan(due, until)
        if plans:
            for tp, plan in plans.items():
                self._owned[tp].plan = plan
            self._commit(consumer, {tp: self._owned[tp].place() for tp in plans})
        ends = self._insert(planned, until)
        if ends:
            self._commit(consumer, {tp: self._owned[tp].end(end) for tp, end in ends.items()})
            for tp, end in ends.items():
                self._advance(tp, end)

    def _announce(self, consumer: Consumer, due: Sequence[TopicPartition]) -> None:
        """Says in the log that this process may die on what is due, where that is not known to go well."""
        new = [tp for tp in due if not self._owned[tp].is_proven or self._owned[tp].history != NO_DEATHS]
        for tp in new:
            self._owned[tp].is_announced = True
        if new:
            self._commit(consumer, {tp: self._owned[tp].place() for tp in new})

    def _take_back(self, consumer: Consumer, due: Sequence[TopicPartition]) -> None:
        """What waits now, nobody dies of."""
        waiting = [tp for tp in due if self._owned[tp].is_announced]
        for tp in waiting:
            self._owned[tp].is_announced = False
        if waiting:
            self._commit(consumer, {tp: self._owned[tp].place() for tp in waiting})

    def _commit_starts(self, consumer: Consumer) -> None:
        """A group that has committed nothing of a partition would have to guess where to start again."""
        starts = {tp: Committed(p.start) for tp, p in self._owned.items() if p.is_new}
        if starts:
            self._commit(consumer, starts)
            for tp in starts:
                self._owned[tp].is_new = False

    def _plan(
        self, due: list[TopicPartition], until: int
    ) -> tuple[list[TopicPartition], dict[TopicPartition, InsertPlan]]:
        """What of it there is room and time for, and the plans that are new."""
        self._rows.begin()
        plans: dict[TopicPartition, InsertPlan] = {}
        size = 0
        for at, tp in enumerate(due):
            partition = self._owned[tp]
            size += partition.size
            if at and (size > MOST_BYTES or self._clock.perf_ns() > until):
                return due[:at], plans
            try:
                plan = self._blocks.make(tp, partition)
            except Unavailable as away:
                # One time-out a turn is enough: the others find out for themselves in later turns.
                partition.postpone(away, self._clock.perf_ns())
                break
            except Exception as error:
                narrow_down(partition, error)
                break
            if plan is not None:
                plans[tp] = plan
        return due, plans

    def _insert(self, due: Sequence[TopicPartition], until: int) -> dict[TopicPartition, int]:
        """The ends of what has been inserted."""
        ends: dict[TopicPartition, int] = {}
        for at, tp in enumerate(due):
            if at and self._clock.perf_ns() > until:
                break
            try:
                end = self._blocks.insert(tp, self._owned[tp])
                if end is not None and (reason := self._owned[tp].unwritable) is not None:
                    self._report(self._owned[tp].messages[0], reason)
            except Unavailable as away:
                self._owned[tp].postpone(away, self._clock.perf_ns())
                break
            except Exception as error:
                narrow_down(self._owned[tp], error)
                break
            if end is not None:
                ends[tp] = end
        return ends

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
        new = self._owned[tp] = old.after(end, self._clock.perf_ns())
        done = len(old.messages) - len(new.messages)
        metrics.BATCHES.inc()
        metrics.RECORDS.labels(tp.topic).inc(done)
        if done:
            appended_s = old.messages[done - 1].timestamp()[1] / 1000
            metrics.WATERMARK.labels(tp.topic, str(tp.partition)).set(appended_s)

    # What others see of it ---

    def _reason(self) -> str | None:
        troubles = ((tp.topic, p.trouble) for tp, p in self._owned.items() if p.trouble)
        return self._not_in_place(self._rows.topics()) or waiting_for(troubles)
