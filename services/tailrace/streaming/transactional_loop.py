"""What the exactly-once runner has of a group: its partitions, their history, and what came of its commits."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from threading import Event

from tailrace.errors import StateLost, Unavailable
from tailrace.streaming.backends.abstract import Backend, Committed, Consumer
from tailrace.streaming.batches import ProcessedBatch
from tailrace.streaming.bounds import Bounds
from tailrace.streaming.consumer_loop import ConsumerLoop, names
from tailrace.streaming.owned_partitions import PAUSE_S, OwnedPartitions, check_co_partitioned
from tailrace.streaming.processor import Processor
from tailrace.streaming.records import TopicPartition
from tailrace.streaming.restoration import Restoration, RestoreTask
from tailrace.streaming.time_source import WaitingClock
from tailrace.streaming.transactions import TransactionOutcome, TransactionResult, Transactions

log = logging.getLogger(__name__)


class TransactionalLoop(ConsumerLoop):
    """A consumer loop that commits its offsets in transactions, and tells ``processor`` whenever partitions come or go,
    and whenever nothing came of a commit. Which batches there are is the subclass's.
    """

    def __init__(
        self,
        backend: Backend,
        processor: Processor,
        *,
        group: str,
        transactional_id: str,
        clock: WaitingClock,
        stop: Event | None,
        co_partitioned: bool,
        bounds: Bounds,
    ) -> None:
        super().__init__(backend, group=group, clock=clock, stop=stop, co_partitioned=co_partitioned)
        self._processor = processor
        self._transactions = Transactions(backend, transactional_id, clock, self._patiently)
        self._restoration = Restoration(backend, processor, bounds)
        self._owned = OwnedPartitions()
        self._committing: ProcessedBatch | None = None
        self._pipelined = False
        self._survived: set[str] = set()

    @property
    def _member_consumer(self) -> Consumer:
        assert self._consumer is not None, "subscribing comes first"
        return self._consumer

    # Partitions ---

    def _positions(self) -> Mapping[TopicPartition, int]:
        return self._owned.positions()

    def on_assign(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to go on. A partition's first record, where nothing is committed, is: later ones need not guess."""
        consumer = self._member_consumer
        self._rebalanced = True
        self._await_commit()
        membership = consumer.membership()
        self._member = membership.member_id
        committed = self._ask_committed(consumer, partitions)
        new = [tp for tp, offset in committed.items() if offset is None]
        starts = {tp: Committed(self._patiently(consumer.earliest, tp)) for tp in new}
        if starts and membership.member_id:
            outcome = self._transactions.transact(consumer, membership, starts)
            if outcome.is_committed:
                self._note_committed(starts)
            self._go_back_unless_committed(outcome)
        assigned = {tp: offset or starts[tp] for tp, offset in committed.items()}
        self._owned.assign(assigned, self._clock.perf_ns())
        if self._co_partitioned:
            check_co_partitioned(self._owned, self._subscribed)
        log.info("assigned", extra={"partitions": names(partitions)})
        self._tell_assigned(partitions)
        return {tp: self._owned[tp].position for tp in partitions}

    def on_revoke(self, partitions: Collection[TopicPartition]) -> None:
        """What is under way of these partitions is finished first, while they are this instance's."""
        log.info("revoked", extra={"partitions": names(partitions)})
        self._let_go(partitions)

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        log.warning("lost", extra={"partitions": names(partitions)})
        self._member = ""
        self._let_go(partitions)

    def _let_go(self, partitions: Collection[TopicPartition]) -> None:
        self._rebalanced = True
        self._await_commit()
        self._owned.revoke(partitions)
        self._rewinding.difference_update(partitions)
        self._measure_no_more(partitions)
        stay = self._restoration.give_up(partitions)
        self._processor.revoked([*partitions, *stay])
        if stay:
            self._tell_assigned(stay)

    def _tell_assigned(self, partitions: Collection[TopicPartition]) -> None:
        history = self._processor.assigned(self._owned.facts(partitions))
        if history:
            self._restoration.add(partitions, history)

    def _assign_anew(self) -> None:
        """Lets the processor forget what it knows beyond the committed offsets."""
        self._pipelined = False
        self._restoration.give_up(self._owned)
        self._processor.revoked(list(self._owned))
        self._tell_assigned(list(self._owned))

    def _start_anew(self, lost: StateLost) -> None:
        """After the processor has lost what it keeps."""
        log.warning("state is read again from the log", extra={"reason": str(lost)})
        self._rewinding.update(self._owned)
        self._assign_anew()

    # History ---

    def _restore(self, task: RestoreTask) -> None:
        """Restores some history; meanwhile this stays a member, and consumes nothing."""
        self.waiting = task.progress()
        self._stay()
        if self._restoration.task is not task:
            return
        try:
            self._restoration.step(task)
        except Unavailable as unavailable:
            self._wait(str(unavailable), PAUSE_S[0])
        except StateLost as lost:
            self._start_anew(lost)

    def _stay(self) -> None:
        """Stays a member, and consumes nothing."""
        new = self._owned.keys() - self._owned.suspended
        if new:
            self._member_consumer.pause(new)
            self._owned.suspended |= new
        try:
            self._member_consumer.consume(1, 0)
        finally:
            # Partitions that have just come are not paused yet.
            self._rewinding.update(self._owned)

    # Pauses ---

    def _suspend_all_but_first(self) -> None:
        suspended = self._owned.behind_first(self._clock.perf_ns())
        before = self._owned.suspended
        if suspended == before:
            return
        resumed = before - suspended
        self._member_consumer.pause(suspended - before)
        self._member_consumer.resume([tp for tp in resumed if self._owned[tp].paused_for is None])
        self._rewinding |= resumed
        self._owned.suspended = suspended

    def _offer_paused(self) -> None:
        due = self._owned.take_due(self._clock.perf_ns())
        if due:
            self._member_consumer.resume(due)
            self._rewinding.update(due)

    # What came of a commit ---

    def _await_commit(self) -> bool:
        """Waits for the commit that is under way, if one is. False: nothing came of it, or that is not known, and
        everything goes back to what is committed. Raises ``RecordRejected``.
        """
        batch, self._committing = self._committing, None
        if batch is None:
            return True
        outcome = self._transactions.await_commit()
        if outcome.is_committed:
            self._finish(batch)
        return self._go_back_unless_committed(outcome)

    def _finish(self, batch: ProcessedBatch) -> None:
        """Takes note that a batch is committed."""
        self._transactions.aborts = 0
        self._pipelined = False
        self._note_committed(batch.offsets)
        for tp, committed in batch.offsets.items():
            self._owned[tp].advance(committed)
        if batch.offsets:
            batch.count()
        if batch.offsets or not batch.messages:
            try:
                batch.output.on_committed()
            except StateLost as lost:
                self._start_anew(lost)
        paused = batch.output.paused
        if paused:
            self._owned.pause(paused, self._clock.perf_ns())
            self._member_consumer.pause(paused)
        else:
            self._survived.update(batch.in_flight)

    def _go_back_unless_committed(self, outcome: TransactionOutcome) -> bool:
        if not outcome.is_committed:
            self._go_back(outcome)
            if outcome.rejected is not None:
                raise outcome.rejected
        return outcome.is_committed

    def _go_back(self, outcome: TransactionOutcome) -> None:
        """Takes everything again from what is committed."""
        if outcome.result is TransactionResult.UNKNOWN:
            self._find_out(outcome.reason)
            return
        self._rewinding.update(self._owned)
        if self._pipelined:
            self._assign_anew()
        aborts = self._transactions.aborts
        if aborts > 1:
            self._wait(f"batches are given up: {outcome.reason}", min(0.005 * 2**aborts, 1.0))

    def _find_out(self, reason: str) -> None:
        """After an unknown outcome: the processor cannot know what counts, and takes over as a new owner would."""
        self._transactions.replace_producer(reason)
        if not self._owned:
            return
        for tp, committed in self._ask_committed(self._member_consumer, list(self._owned)).items():
            if committed is not None:
                self._owned[tp].believe(committed)
        self._rewinding.update(self._owned)
        self._assign_anew()
