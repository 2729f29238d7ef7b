"""The exactly-once runner.

Each turn takes what is new on the control topics, then one batch: consume, process, and in one transaction write the
outputs and dead letters and commit the offsets. Whatever fails is either repeated, or aborted and taken again from the
committed offsets, or ends the process with nothing committed.

Each step is bounded in records, bytes and time (docs/adr/0198): what is consumed is cut to the bounds; a batch that
comes to more is taken again in halves; and a processor that has more due than that says so and is asked again before
new messages are fetched.

Where the log holds another full batch, and the processor allows it, a commit is awaited only when that batch is
processed (docs/adr/0157). Before anything else is done, and whenever partitions move, it is awaited.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from threading import Event

from tailrace.errors import DiskFailed, StateLost, Unavailable
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.abstract import Backend, LogError, Membership, Retriable
from tailrace.streaming.batches import IDLE_WAIT_S, MAX_BATCH, BatchLimit, ProcessedBatch, fetch, last_of
from tailrace.streaming.bounds import STEP, Bounds, prefix
from tailrace.streaming.guarded_processing import GuardedProcessing, Quarantine
from tailrace.streaming.owned_partitions import PAUSE_S, LastMessages
from tailrace.streaming.processor import HasDue, NamesInFlight, Output, Processor, TellsModelsApart
from tailrace.streaming.records import Message, PausedPartition
from tailrace.streaming.time_source import WaitingClock
from tailrace.streaming.transactional_loop import TransactionalLoop
from tailrace.streaming.transactions import COMMITTED, TransactionOutcome

log = logging.getLogger(__name__)

STAY_S = 1.0
"""How often a process that fetches nothing for now says that it is still a member of its group."""


class ExactlyOnceRunner(TransactionalLoop):
    """Runs ``processor`` on ``backend``.

    Args:
        service: the service's name, for dead letters.
        group: consumer group.
        transactional_id: stable for an instance where it has an ordinal, else unique. Safety does not rest on it.
        quarantine: what to write instead of processing a message that stops the process, and why it does.
        stop: set when the process is to end; whatever waits then gives up.
        max_batch: records in a batch, at most.
        co_partitioned: the partitions of one number, of all topics of a lane, belong to one instance.
        linger_s: how long a batch that has begun is waited for to fill; for services that nobody waits for.
        bounds: of one step.
    """

    def __init__(
        self,
        backend: Backend,
        processor: Processor,
        *,
        service: str,
        group: str,
        transactional_id: str,
        clock: WaitingClock,
        quarantine: Quarantine,
        stop: Event | None = None,
        max_batch: int = MAX_BATCH,
        co_partitioned: bool = False,
        linger_s: float = 0.0,
        bounds: Bounds = STEP,
    ) -> None:
        super().__init__(
            backend,
            processor,
            group=group,
            transactional_id=transactional_id,
            clock=clock,
            stop=stop,
            co_partitioned=co_partitioned,
            bounds=bounds,
        )
        self._names_in_flight = processor if isinstance(processor, NamesInFlight) else None
        self._apart = processor if isinstance(processor, TellsModelsApart) else None
        self._has_due = processor if isinstance(processor, HasDue) else None
        self._processing = GuardedProcessing(processor, self._owned, quarantine, clock)
        self._batch_limit = BatchLimit(bounds, max_batch)
        self._service = service
        self._linger_s = linger_s
        self._bounds = bounds
        self._unavailable: str | None = None
        self._stay_at: int | None = None

    # The turn ---

    def close(self) -> None:
        """Leaves the group, so that others take over at once. An open transaction is left to the broker."""
        try:
            self._await_commit()
        except Exception as error:
            log.warning("the last commit's outcome is not known", extra={"reason": str(error)})
        histories = self._restoration.end()
        super().close()
        self._close(self._transactions, *histories)

    def _turn(self) -> None:
        self._transactions.start()
        if not self._take_control():
            return
        self._subscribe(self._processor.topics())
        if self._consumer is None:
            self._wait(self._reason(), IDLE_WAIT_S)
        elif self._restoration.task is not None:
            self._restore(self._restoration.task)
        elif not self._process_due():
            self._suspend_all_but_first()
            self._offer_paused()
            self._take_new()
            self.waiting = self._reason()
            self._measure(self._consumer)

    def _take_new(self) -> None:
        if self._rewinding and not self._await_commit():
            return
        self._rewind(self._member_consumer)
        messages = self._fetch()
        if messages:
            self._take(messages)
        else:
            self._await_commit()

    def _reason(self) -> str | None:
        not_reading = self._unavailable or self._not_in_place(self._processor.topics())
        self.models = {} if self._apart is None else self._apart.by_model()
        of_models = {reason for reason in self.models.values() if reason is not None}
        return not_reading or self._owned.paused_for(of_models) or self._processor.waiting()

    def _take_control(self) -> bool:
        """Hands the processor what is new on its control topics; False until it has had all that there was."""
        if not self._read_control(self._processor.control_topics()):
            return False
        if self._control or not self._primed:
            try:
                self._processor.control(self._control)
            except Unavailable as unavailable:
                self._unavailable = str(unavailable)
                self._wait(self._unavailable, PAUSE_S[0])
                return self._primed
            self._control = []
            self._primed = True
            self._unavailable = None
            self._owned.offer_all()
        return True

    # What is taken ---

    def _process_due(self) -> bool:
        """One step of what is due from what was read before; False where nothing is, or not now."""
        is_waiting = self._unavailable is not None or not self._owned
        if self._has_due is None or is_waiting or not self._has_due.due():
            self._stay_at = None
            return False
        self.waiting = self._reason()
        now = self._clock.perf_ns()
        if self._stay_at is None or now >= self._stay_at:
            if self._stay_at is not None:
                self._stay()
            self._stay_at = now + int(STAY_S * 1e9)
        if self._restoration.task is not None:
            return True
        membership = self._member_consumer.membership()
        if not membership.member_id or membership.member_id != self._member:
            return False
        self._await_commit()
        if self._has_due.due():
            try:
                self._run_batch(membership, (), {})
            except Unavailable as unavailable:
                self._wait(str(unavailable), PAUSE_S[0])
                return False
        self._measure(self._member_consumer)
        return True

    def _fetch(self) -> Sequence[Message]:
        limit = 1 if self._owned.any_alone() else self._batch_limit.limit
        self._rebalanced = False
        under_way = self._committing.offsets if self._committing else {}
        is_full = self._owned.backlog(self._member_consumer.end, under_way, limit) >= limit
        try:
            messages = fetch(self._member_consumer, limit, is_full=is_full, linger_s=self._linger_s)
        except Retriable:
            self._rewinding.update(self._owned)
            raise
        if self._rebalanced:
            # Which messages were read before the partitions moved, and which after, is not known.
            self._rewinding.update(self._owned)
            return ()
        return messages

    def _take(self, messages: Sequence[Message]) -> None:
        """Processes what was consumed, of the partitions that are this instance's and at their positions."""
        # At once, so that it is the membership under which the messages were read.
        membership = self._member_consumer.membership()
        if not membership.member_id or membership.member_id != self._member:
            # Expelled, as after a stall. The client will say so in one of its next calls.
            self._rewinding.update(self._owned)
            return
        last = last_of(messages)
        unwanted = {tp for tp in last if tp in self._rewinding or not self._owned.takes(tp)}
        if unwanted:
            messages = [m for m in messages if (m.topic(), m.partition()) not in unwanted]
            last = {tp: message for tp, message in last.items() if tp not in unwanted}
        within = prefix(messages, self._bounds.size)
        if len(within) < len(messages):
            last = last_of(within)
        if messages:
            self._run_batch(membership, within, last)
        self._rewinding.update(last_of(messages[len(within) :]))
        self._rewinding &= self._owned.keys()

    # The batch ---

    def _run_batch(self, membership: Membership, messages: Sequence[Message], last: LastMessages) -> None:
        """Takes one batch to its commit, which may still be under way afterwards, or leaves all as it was before."""
        if not self._is_plain(last) and not self._await_commit():
            return
        try:
            batch = self._make_batch(membership, messages, last)
            outcome = None if batch is None else self._write(membership, batch)
        except StateLost as lost:
            if self._await_commit():
                self._start_anew(lost)
        except DiskFailed:
            self._blame_nobody(membership, last)
            raise
        else:
            if batch is not None and outcome is not None:
                self._end_batch(batch, outcome)

    def _make_batch(
        self, membership: Membership, messages: Sequence[Message], last: LastMessages
    ) -> ProcessedBatch | None:
        """Announces and processes it; None where the commit on which it is built came to nothing."""
        in_flight: Sequence[str] = ()
        if self._names_in_flight is not None:
            in_flight = self._names_in_flight.in_flight({tp.topic for tp in last}, self._owned.suspects())
        if not self._announce(membership, last, in_flight):
            return None
        # What the processor knew before the control records that it could not take up yet decides nothing.
        unavailable = self._unavailable
        output = self._processing.process(messages) if unavailable is None else Unavailable(unavailable)
        if not self._await_commit():
            return None
        if isinstance(output, Unavailable):
            if not messages:
                raise output
            reason = str(output)
            output = Output(paused={tp: PausedPartition(self._owned[tp].position, reason) for tp in last})
        self._pipelined = output.pipelined
        offsets = self._owned.offsets(output, last)
        letters = [dead_letters.to_record(letter, self._service) for letter in output.dead_letters]
        return ProcessedBatch(messages, last, in_flight, output, offsets, letters)

    def _announce(self, membership: Membership, last: LastMessages, in_flight: Sequence[str]) -> bool:
        """Announces a batch that others may have died on, with what is in flight. False where nothing came of it."""
        is_news = not self._survived.issuperset(in_flight)
        if is_news and not self._await_commit():
            return False
        announcements = self._owned.announcements(last, in_flight, is_news)
        if not announcements:
            return True
        outcome = self._transactions.transact(self._member_consumer, membership, announcements)
        if outcome.is_committed:
            self._owned.announced(announcements)
        return self._go_back_unless_committed(outcome)

    def _write(self, membership: Membership, batch: ProcessedBatch) -> TransactionOutcome | None:
        """What came of its transaction; None where the commit is under way."""
        too_much = self._batch_limit.learn(len(batch.messages), *batch.written(), self._processing.took_s)
        if too_much is not None:
            return self._transactions.abort(too_much)
        if not batch.offsets:
            return COMMITTED
        records, letters = batch.output.records, batch.letters
        failed = self._transactions.write(self._member_consumer, membership, records, letters)
        if failed is not None or not self._may_pipeline(batch):
            return failed or self._transactions.commit(batch.offsets, membership)
        self._transactions.begin_commit(batch.offsets, membership)
        self._committing = batch
        return None

    def _may_pipeline(self, batch: ProcessedBatch) -> bool:
        """Whether the next batch may be taken before this one is known to be committed: when a full one waits, and not
        for a few records, which are sooner answered together with those that come until then.
        """
        may_wait = batch.output.pipelined and not batch.output.paused and self._is_plain(batch.last)
        limit = self._batch_limit.limit
        return may_wait and self._owned.backlog(self._member_consumer.end, batch.offsets, limit) >= limit

    def _is_plain(self, last: LastMessages) -> bool:
        """Whether a batch of these partitions is like those before it, so that it needs not wait for their commit."""
        return self._unavailable is None and self._owned.are_plain(last)

    def _end_batch(self, batch: ProcessedBatch, outcome: TransactionOutcome) -> None:
        if outcome.is_committed:
            self._finish(batch)
            return
        self._go_back(outcome)
        if outcome.rejected is not None:
            alone = self._owned.taken_alone(batch.messages)
            if alone is None:
                raise outcome.rejected
            alone.poison_reason = f"what comes of it is refused: {outcome.rejected}"

    def _blame_nobody(self, membership: Membership, last: LastMessages) -> None:
        """Takes back what was announced: the process ends, and not of a record."""
        with suppress(LogError):
            retractions = self._owned.retractions(last) if self._await_commit() else {}
            if retractions and not self._transactions.is_open:
                self._transactions.transact(self._member_consumer, membership, retractions)
