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
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from threading import Event

from tailrace.errors import DiskFailed, StateLost, Unavailable
from tailrace.shortages import shortage_of
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.abstract import (
    Backend,
    Committed,
    Consumer,
    LogError,
    Membership,
    Retriable,
)
from tailrace.streaming.batches import IDLE_WAIT_S, MAX_BATCH, Batch, BatchLimit, fetch, last_of
from tailrace.streaming.bounds import STEP, Bounds, prefix
from tailrace.streaming.consumer_loop import ConsumerLoop, names
from tailrace.streaming.owned_partitions import HOLD_WAIT_S, OwnedPartitions, check_co_partitioned
from tailrace.streaming.processor import HasDue, NamesInFlight, Output, Processor
from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.restoration import Restoration
from tailrace.streaming.time_source import WaitingClock
from tailrace.streaming.transactions import Outcome, Result, Transactions
from tailrace.telemetry import metrics

log = logging.getLogger(__name__)

STAY_S = 1.0
"""How often a process that fetches nothing for now says that it is still a member of its group."""


class ExactlyOnceRunner(ConsumerLoop):
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
        super().__init__(backend, group=group, clock=clock, stop=stop, co_partitioned=co_partitioned)
        self._logic = logic
        self._named = logic if isinstance(logic, NamesInFlight) else None
        self._has_due = logic if isinstance(logic, HasDue) else None
        self._service = service
        self._quarantine = quarantine
        self._linger_s = linger_s
        self._bounds = bounds
        self._batch_limit = BatchLimit(bounds, max_batch)
        self._transactions = Transactions(backend, transactional_id, clock, self._patiently)
        self._restoration = Restoration(backend, logic, bounds)
        self._owned = OwnedPartitions()
        self._committing: Batch | None = None
        self._pipelined = False
        self._survived: set[str] = set()
        self._away: str | None = None
        self._stay_at: int | None = None
        self._took_ns = 0

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

    def _positions(self) -> Mapping[TopicPartition, int]:
        return self._owned.positions()

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

    # Partitions ---

    def on_assign(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to go on. A partition of which the group has committed nothing starts at its first record; that
        start is committed, so that later ones need not guess.
        """
        assert self._consumer is not None
        self._rebalanced = True
        self._await_commit()
        membership = self._consumer.membership()
        self._member = membership.member_id
        committed = self._ask_committed(self._consumer, partitions)
        starts = {
            tp: Committed(self._patiently(self._consumer.earliest, tp))
            for tp, offset in committed.items()
            if offset is None
        }
        if starts and membership.member_id:
            outcome = self._transactions.transact(self._consumer, membership, starts)
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
        self._logic.revoked([*partitions, *stay])
        if stay:
            self._tell_assigned(stay)

    def _tell_assigned(self, partitions: Collection[TopicPartition]) -> None:
        history = self._logic.assigned(self._owned.facts(partitions))
        if history:
            self._restoration.add(partitions, history)

    def _assign_anew(self) -> None:
        """Lets the logic forget what it knows beyond the committed offsets."""
        self._pipelined = False
        self._restoration.give_up(self._owned)
        self._logic.revoked(list(self._owned))
        self._tell_assigned(list(self._owned))

    def _start_anew(self, lost: StateLost) -> None:
        """After the logic has lost what it keeps."""
        log.warning("state is read again from the log", extra={"reason": str(lost)})
        self._rewinding.update(self._owned)
        self._assign_anew()

    def _restore(self, consumer: Consumer) -> None:
        """Restores some history; meanwhile this stays a member, and consumes nothing."""
        task = self._restoration.task
        assert task is not None
        self.waiting = task.progress()
        self._stay(consumer)
        if self._restoration.task is not task:
            return
        try:
            self._restoration.step(task)
        except Unavailable as away:
            self._wait(str(away), HOLD_WAIT_S[0])
        except StateLost as lost:
            self._start_anew(lost)

    def _stay(self, consumer: Consumer) -> None:
        """Stays a member, and consumes nothing."""
        new = self._owned.keys() - self._owned.paused
        if new:
            consumer.pause(new)
            self._owned.paused |= new
        try:
            consumer.consume(1, 0)
        finally:
            # Partitions that have just come are not paused yet.
            self._rewinding.update(self._owned)

    def _pause_all_but_first(self, consumer: Consumer) -> None:
        paused = self._owned.behind_first(self._clock.perf_ns())
        before = self._owned.paused
        if paused == before:
            return
        resumed = before - paused
        consumer.pause(paused - before)
        consumer.resume([tp for tp in resumed if self._owned[tp].hold is None])
        self._rewinding |= resumed
        self._owned.paused = paused

    def _offer_held(self, consumer: Consumer) -> None:
        due = self._owned.take_due(self._clock.perf_ns())
        if due:
            consumer.resume(due)
            self._rewinding.update(due)

    # What is taken ---

    def _work_off(self, consumer: Consumer) -> bool:
        """One step of what is due from what was read before; False where nothing is, or not now."""
        if self._has_due is None or self._away is not None or not self._owned or not self._has_due.due():
            self._stay_at = None
            return False
        self.waiting = self._reason()
        now = self._clock.perf_ns()
        if self._stay_at is not None and now >= self._stay_at:
            self._stay(consumer)
        if self._stay_at is None or now >= self._stay_at:
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
        is_full = self._backlog(consumer, under_way) >= limit
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

    def _backlog(self, consumer: Consumer, under_way: Mapping[TopicPartition, Committed]) -> int:
        return self._owned.backlog(consumer.end, under_way, self._batch_limit.limit)

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
    ) -> Batch | None:
        """Announces and processes it; None where the commit on which it is built came to nothing."""
        in_flight = () if self._named is None else self._named.in_flight(
            {tp.topic for tp in last}, self._owned.suspects()
        )  # fmt: skip
        if not self._announce(consumer, membership, last, in_flight):
            return None
        output = self._process(messages, last)
        if output is None or not self._await_commit():
            return None
        self._pipelined = output.pipelined
        offsets = self._owned.offsets(output, last)
        letters = [dead_letters.to_record(letter, self._service) for letter in output.dead_letters]
        return Batch(messages, last, in_flight, output, offsets, letters)

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

    def _process(self, messages: Sequence[Message], last: Mapping[TopicPartition, Message]) -> Output | None:
        if self._away is not None:
            # Nothing is decided by what the logic knew before the control records that it could not take up yet.
            return self._owned.hold_all(self._away, last)
        alone = None
        if len(messages) == 1:
            partition = self._owned[next(iter(last))]
            alone = partition if partition.crash_history.alone else None
        started = self._clock.perf_ns()
        try:
            if alone is not None and alone.poison_reason is not None:
                return self._quarantine(messages[0], alone.poison_reason)
            return self._logic.process(messages, self._clock)
        except Unavailable as away:
            return self._hold_batch(away, last)
        except (StateLost, DiskFailed):
            raise
        except Exception as error:
            # By its number alone: the words of an error may be a record's.
            if isinstance(error, OSError) and (short := shortage_of(error)) is not None:
                return self._hold_batch(Unavailable(short), last)
            if alone is None or alone.poison_reason is not None:
                raise
            log.exception("a record is quarantined")
            alone.poison_reason = f"{type(error).__name__}: {error}"
            return self._owned.hold_all(alone.poison_reason, last)
        finally:
            self._took_ns = self._clock.perf_ns() - started
            metrics.PROCESS_SECONDS.observe(self._took_ns / 1e9)

    def _hold_batch(self, away: Unavailable, last: Mapping[TopicPartition, Message]) -> Output | None:
        """Holds a batch where the one before it ended. Raises ``away`` where it has no messages."""
        if not self._await_commit():
            return None
        if not last:
            raise away
        return self._owned.hold_all(str(away), last)

    def _write(self, consumer: Consumer, membership: Membership, batch: Batch) -> Outcome | None:
        """What came of its transaction; None where the commit is under way."""
        too_much = self._batch_limit.learn(len(batch.messages), *batch.written(), self._took_ns / 1e9)
        if too_much is not None:
            return self._transactions.abort(too_much)
        if not batch.offsets:
            return Outcome(Result.COMMITTED)
        failed = self._transactions.write(consumer, membership, batch.output.records, batch.letters)
        if failed is not None:
            return failed
        if self._may_go_ahead(consumer, batch):
            self._transactions.begin_commit(batch.offsets, membership)
            self._committing = batch
            return None
        return self._transactions.commit(batch.offsets, membership)

    def _may_go_ahead(self, consumer: Consumer, batch: Batch) -> bool:
        """Whether the next batch may be taken before this one is known to be committed: when a full one waits, and not
        for a few records, which are sooner answered together with those that come until then.
        """
        if not batch.output.pipelined or batch.output.paused or not self._is_plain(batch.last):
            return False
        return self._backlog(consumer, batch.offsets) >= self._batch_limit.limit

    def _is_plain(self, last: Mapping[TopicPartition, Message]) -> bool:
        """Whether a batch of these partitions is like those before it, so that it needs not wait for their commit."""
        return self._away is None and self._owned.are_plain(last)

    # What came of it ---

    def _await_commit(self) -> bool:
        """Waits for the commit that is under way, if one is. False: nothing came of it, or that is not known, and
        everything goes back to what is committed. Raises ``RecordRejected``.
        """
        batch, self._committing = self._committing, None
        if batch is None:
            return True
        assert self._consumer is not None
        outcome = self._transactions.await_commit()
        if outcome.is_committed:
            self._finish(self._consumer, batch)
        return self._go_back_unless_committed(outcome)

    def _end_batch(self, consumer: Consumer, batch: Batch, outcome: Outcome) -> None:
        if outcome.is_committed:
            self._finish(consumer, batch)
            return
        self._go_back(outcome)
        if outcome.rejected is not None:
            alone = [p for p in map(self._owned.get, batch.last) if p is not None and p.crash_history.alone]
            if not alone or len(batch.messages) > 1:
                raise outcome.rejected
            alone[0].poison_reason = f"what comes of it is refused: {outcome.rejected}"

    def _finish(self, consumer: Consumer, batch: Batch) -> None:
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
                self._logic.committed(batch.output)
            except StateLost as lost:
                self._start_anew(lost)
        paused = batch.output.paused
        if paused:
            self._owned.hold(paused, self._clock.perf_ns())
            consumer.pause(paused)
        else:
            self._survived.update(batch.in_flight)

    def _go_back_unless_committed(self, outcome: Outcome) -> bool:
        if not outcome.is_committed:
            self._go_back(outcome)
            if outcome.rejected is not None:
                raise outcome.rejected
        return outcome.is_committed

    def _go_back(self, outcome: Outcome) -> None:
        """Takes everything again from what is committed."""
        if outcome.result is Result.UNKNOWN:
            self._find_out(outcome.reason)
            return
        self._rewinding.update(self._owned)
        if self._pipelined:
            self._assign_anew()
        aborts = self._transactions.aborts
        if aborts > 1:
            self._wait(f"batches are given up: {outcome.reason}", min(0.005 * 2**aborts, 1.0))

    def _find_out(self, reason: str) -> None:
        """Asks what is committed, after an unknown outcome. The logic cannot know whether its last batch counts, so it
        takes its partitions over as a new owner would.
        """
        self._transactions.replace_producer(reason)
        if not self._owned:
            return
        assert self._consumer is not None
        for tp, committed in self._ask_committed(self._consumer, list(self._owned)).items():
            if committed is not None:
                self._owned[tp].believe(committed)
        self._rewinding.update(self._owned)
        self._assign_anew()

    def _blame_nobody(
        self, consumer: Consumer, membership: Membership, last: Mapping[TopicPartition, Message]
    ) -> None:
        """Takes back what was announced: the process ends, and not of a record."""
        with suppress(LogError):
            if not self._await_commit():
                return
            retractions = self._owned.retractions(last)
            if retractions and not self._transactions.is_open:
                self._transactions.transact(consumer, membership, retractions)
