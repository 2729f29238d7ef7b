"""The one loop that runs a service's logic exactly once.

Each turn takes what is new on the control topics, then one batch: consume, process, and in one transaction
write the outputs and dead letters and commit the offsets. Whatever fails is either repeated, or aborted and
taken again from the committed offsets, or ends the process with nothing committed.

Each step is bounded in records, bytes and time (docs/adr/0198): what is consumed is cut to the bounds; a batch that
comes to more is taken again in halves; and a logic that has more due than that says so and is asked again before new
messages are fetched.

Where the log holds another full batch, and the logic allows it, a commit is waited for only when that batch is
processed (docs/adr/0157). Before anything else is done, and whenever partitions move, it is awaited.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Event

from tailrace.errors import DiskFailed, StateLost, Unavailable
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.abstract import Backend, Consumer, LogError, Membership, Retriable
from tailrace.streaming.batches import IDLE_WAIT_S, MAX_BATCH, BatchLimit, ProcessedBatch, fetch, last_of
from tailrace.streaming.bounds import STEP, Bounds, prefix
from tailrace.streaming.guarded_processing import GuardedProcessing
from tailrace.streaming.owned_partitions import HOLD_WAIT_S
from tailrace.streaming.processor import HasDue, NamesInFlight, Output, Processor
from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.time_source import WaitingClock
from tailrace.streaming.transactional_loop import TransactionalLoop
from tailrace.streaming.transactions import COMMITTED, TransactionOutcome

log = logging.getLogger(__name__)

STAY_S = 1.0
"""How often a process that fetches nothing for now says that it is still a member of its group."""


class ExactlyOnceRunner(TransactionalLoop):
    """Runs ``logic`` on ``backend``.

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
        logic: Processor,
        *,
        service: str,
        group: str,
        transactional_id: str,
        clock: WaitingClock,
        quarantine: Callable[[Message, str], Output],
        stop: Event | None = None,
        max_batch: int = MAX_BATCH,
        co_partitioned: bool = False,
        linger_s: float = 0.0,
        bounds: Bounds = STEP,
    ) -> None:
        super().__init__(
            backend,
            logic,
            group=group,
            transactional_id=transactional_id,
            clock=clock,
            stop=stop,
            co_partitioned=co_partitioned,
            bounds=bounds,
        )
        self._named = logic if isinstance(logic, NamesInFlight) else None
        self._has_due = logic if isinstance(logic, HasDue) else None
        self._processing = GuardedProcessing(logic, self._owned, quarantine, clock)
        self._batch_limit = BatchLimit(bounds, max_batch)
        self._service = service
        self._linger_s = linger_s
        self._bounds = bounds
        self._away: str | None = None
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
        self._subscribe(self._logic.topics())
        if self._consumer is None:
            self._wait(self._reason(), IDLE_WAIT_S)
        elif self._restoration.task is not None:
            self._restore(self._consumer)
        elif not self._work_off(self._consumer):
            self._pause_all_but_first(self._consumer)
            self._offer_held(self._consumer)
            self._take_new(self._consumer)
            self.waiting = self._reason()
            self._measure(self._consumer)

    def _take_new(self, consumer: Consumer) -> None:
        if self._rewinding and not self._await_commit():
            return
        self._rewind(consumer)
        messages = self._fetch(consumer)
        if messages:
            self._take(consumer, messages)
        else:
            self._await_commit()

    def _reason(self) -> str | None:
        return (
            self._away
            or self._not_in_place(self._logic.topics())
            or self._owned.held_for()
            or self._logic.waiting()
        )

    def _take_control(self) -> bool:
        """Hands the logic what is new on its control topics; False until it has had all that there was."""
        if not self._read_control(self._logic.control_topics()):
            return False
        if self._control or not self._primed:
            try:
                self._logic.control(self._control)
            except Unavailable as away:
                self._away = str(away)
                self._wait(self._away, HOLD_WAIT_S[0])
                return self._primed
            self._control = []
            self._primed = True
            self._away = None
            self._owned.offer_all()
        return True

    # What is taken ---

    def _work_off(self, consumer: Consumer) -> bool:
        """One step of what is due from what was read before; False where nothing is, or not now."""
        if self._has_due is None or self._away is not None or not self._owned or not self._has_due.due():
            self._stay_at = None
            return False
        self.waiting = self._reason()
        now = self._clock.perf_ns()
        if self._stay_at is None or now >= self._stay_at:
            if self._stay_at is not None:
                self._stay(consumer)
            self._stay_at = now + int(STAY_S * 1e9)
        if self._restoration.task is not None:
            return True
        membership = consumer.membership()
        if not membership.member_id or membership.member_id != self._member:
            return False
        self._await_commit()
        if self._has_due.due():
            try:
                self._run_batch(consumer, membership, (), {})
            except Unavailable as away:
                self._wait(str(away), HOLD_WAIT_S[0])
                return False
        self._measure(consumer)
        return True

    def _fetch(self, consumer: Consumer) -> Sequence[Message]:
        limit = 1 if self._owned.any_alone() else self._batch_limit.limit
        self._rebalanced = False
        under_way = self._committing.offsets if self._committing else {}
        is_full = self._owned.backlog(consumer.end, under_way, limit) >= limit
        try:
            messages = fetch(consumer, limit, is_full=is_full, linger_s=self._linger_s)
        except Retriable:
            self._rewinding.update(self._owned)
            raise
        if self._rebalanced:
            # Which messages were read before the partitions moved, and which after, is not known.
            self._rewinding.update(self._owned)
            return ()
        return messages

    def _take(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        """Processes what was consumed, of the partitions that are this instance's and at their positions."""
        # At once, so that it is the membership under which the messages were read.
        membership = consumer.membership()
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
            self._run_batch(consumer, membership, within, last)
        self._rewinding.update(last_of(messages[len(within) :]))
        self._rewinding &= self._owned.keys()

    # The batch ---

    def _run_batch(
        self,
        consumer: Consumer,
        membership: Membership,
        messages: Sequence[Message],
        last: Mapping[TopicPartition, Message],
    ) -> None:
        """Takes one batch to its commit, or leaves everything as if it had never been consumed. The commit may still be
        under way afterwards, where another full batch waits.
        """
        if not self._is_plain(last) and not self._await_commit():
            return
        try:
            batch = self._make_batch(consumer, membership, messages, last)
            outcome = None if batch is None else self._write(consumer, membership, batch)
        except StateLost as lost:
            if self._await_commit():
                self._start_anew(lost)
        except DiskFailed:
            self._blame_nobody(consumer, membership, last)
            raise
        else:
            if batch is not None and outcome is not None:
                self._end_batch(consumer, batch, outcome)

    def _make_batch(
        self,
        consumer: Consumer,
        membership: Membership,
        messages: Sequence[Message],
        last: Mapping[TopicPartition, Message],
    ) -> ProcessedBatch | None:
        """Announces and processes it; None where the commit on which it is built came to nothing."""
        in_flight: Sequence[str] = ()
        if self._named is not None:
            in_flight = self._named.in_flight({tp.topic for tp in last}, self._owned.suspects())
        if not self._announce(consumer, membership, last, in_flight):
            return None
        # What the logic knew before the control records that it could not take up yet decides nothing.
        output = Unavailable(self._away) if self._away is not None else self._processing.process(messages)
        if not self._await_commit():
            return None
        if isinstance(output, Unavailable):
            if not messages:
                raise output
            output = self._owned.hold_all(str(output), last)
        self._pipelined = output.pipelined
        offsets = self._owned.offsets(output, last)
        letters = [dead_letters.to_record(letter, self._service) for letter in output.dead_letters]
        return ProcessedBatch(messages, last, in_flight, output, offsets, letters)

    def _announce(
        self,
        consumer: Consumer,
        membership: Membership,
        last: Mapping[TopicPartition, Message],
        in_flight: Sequence[str],
    ) -> bool:
        """Says in the log that this process takes up what others may have died on (see `crash_history`), and with
        what in flight. False where nothing came of it.
        """
        is_news = not self._survived.issuperset(in_flight)
        if is_news and not self._await_commit():
            return False
        announcements = self._owned.announcements(last, in_flight, is_news)
        if not announcements:
            return True
        outcome = self._transactions.transact(consumer, membership, announcements)
        if outcome.is_committed:
            self._owned.announced(announcements)
        return self._go_back_unless_committed(outcome)

    def _write(
        self, consumer: Consumer, membership: Membership, batch: ProcessedBatch
    ) -> TransactionOutcome | None:
        """What came of its transaction; None where the commit is under way."""
        too_much = self._batch_limit.learn(len(batch.messages), *batch.written(), self._processing.took_s)
        if too_much is not None:
            return self._transactions.abort(too_much)
        if not batch.offsets:
            return COMMITTED
        failed = self._transactions.write(consumer, membership, batch.output.records, batch.letters)
        if failed is not None or not self._may_go_ahead(consumer, batch):
            return failed or self._transactions.commit(batch.offsets, membership)
        self._transactions.begin_commit(batch.offsets, membership)
        self._committing = batch
        return None

    def _may_go_ahead(self, consumer: Consumer, batch: ProcessedBatch) -> bool:
        """Whether the next batch may be taken before this one is known to be committed: when a full one waits, and not
        for a few records, which are sooner answered together with those that come until then.
        """
        may_wait = batch.output.pipelined and not batch.output.paused and self._is_plain(batch.last)
        limit = self._batch_limit.limit
        return may_wait and self._owned.backlog(consumer.end, batch.offsets, limit) >= limit

    def _is_plain(self, last: Mapping[TopicPartition, Message]) -> bool:
        """Whether a batch of these partitions is like those before it, so that it needs not wait for their commit."""
        return self._away is None and self._owned.are_plain(last)

    def _end_batch(self, consumer: Consumer, batch: ProcessedBatch, outcome: TransactionOutcome) -> None:
        if outcome.is_committed:
            self._finish(consumer, batch)
            return
        self._go_back(outcome)
        if outcome.rejected is not None:
            alone = self._owned.taken_alone(batch.messages)
            if alone is None:
                raise outcome.rejected
            alone.poison_reason = f"what comes of it is refused: {outcome.rejected}"

    def _blame_nobody(
        self, consumer: Consumer, membership: Membership, last: Mapping[TopicPartition, Message]
    ) -> None:
        """Takes back what was announced: the process ends, and not of a record."""
        with suppress(LogError):
            retractions = self._owned.retractions(last) if self._await_commit() else {}
            if retractions and not self._transactions.is_open:
                self._transactions.transact(consumer, membership, retractions)
