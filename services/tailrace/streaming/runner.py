"""The one loop that runs a service's logic exactly once.

Each turn takes what is new on the control topics, then one batch: consume, process, and in one transaction
write the outputs and dead letters and commit the offsets. Whatever fails is either repeated, or aborted and
taken again from the committed offsets, or ends the process with nothing committed.

Each step is bounded in records, bytes and time (docs/adr/0198): what is consumed is cut to the bounds; a batch that
comes to more is taken again in halves; and a logic that has more due than that says so and is asked again before new
messages are fetched.

Where the log holds another full batch, and the logic allows it, a commit is waited for only when that batch is
processed (docs/adr/0157). Before anything else is done, and whenever partitions move, it is settled.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

from tailrace.errors import DiskFailed, StateLost, TailraceError, Unavailable
from tailrace.shortages import shortage_of
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.abstract import (
    TRANSACTION_TIMEOUT_MS,
    Abortable,
    Backend,
    Committed,
    Consumer,
    Fenced,
    History,
    LogError,
    LogReader,
    Membership,
    OutcomeUnknown,
    RecordRejected,
    Retriable,
    TransactionalProducer,
)
from tailrace.streaming.bounds import STEP, Bounds, prefix, size_of
from tailrace.streaming.consumer_loop import ConsumerLoop, names, so_far
from tailrace.streaming.crash_history import MAX_FACTS_BYTES, CrashHistory, pack, unpack
from tailrace.streaming.processor import HasDue, NamesInFlight, Output, Processor, Suspect
from tailrace.streaming.records import Message, PausedPartition, Record, TopicPartition
from tailrace.streaming.time_source import WaitingClock
from tailrace.telemetry import metrics
from tailrace.telemetry.reasons import listed, waiting_for

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

MAX_BATCH = 5_000
FIRST_BATCH = 100
"""Records in a process's first batch, at most: what a record costs is not known before."""
STAY_S = 1.0
"""How often a process that fetches nothing for now says that it is still a member of its group."""
IDLE_WAIT_S = 0.01
FILL_WAIT_S = 0.05
"""How long a batch is waited for when the log is known to hold a full one."""
HOLD_WAIT_S = (0.05, 0.5)
"""How long a held partition waits before it is offered again: at first, and at most, doubling."""
FIRST_S = 5.0
"""How long the records that processes have died on come before all others, at most."""
DECIDE_S = 15.0
"""How long the outcome of a transaction is waited for before the producer is replaced to find out."""


@dataclass(slots=True)
class _Partition:
    """A partition that this instance owns.

    Attributes:
        position: the next offset to process, which is also the committed one.
        metadata: the logic's facts, as committed.
        crash_history: see `crash_history`; what earlier processes left.
        announced: the position for which this process announced a trial, or -1.
        first_until: until when it comes before others if processes have died on it, in ``perf_ns`` time.
        proven: this process has committed records of the partition.
        poison_reason: why the next record is not to be processed, where that is known.
        hold: why the partition waits, where it does.
        offer_at: when a held partition is offered again, in ``perf_ns`` time.
        wait_s: how long it waits the next time.
    """

    position: int
    metadata: str
    crash_history: CrashHistory
    first_until: int
    announced: int = -1
    proven: bool = False
    poison_reason: str | None = None
    hold: str | None = None
    offer_at: int = 0
    wait_s: float = HOLD_WAIT_S[0]


@dataclass(slots=True, eq=False)
class _Restoring:
    """History that the logic asked for when it was assigned some partitions.

    Attributes:
        partitions: those partitions.
        reader: where reading has begun.
        messages: what was read and the logic has not taken yet.
        taken: how many it has taken.
        more: what it has taken makes more due than one step may be.
    """

    partitions: frozenset[TopicPartition]
    history: History
    reader: LogReader | None = None
    messages: list[Message] = field(default_factory=list)
    taken: int = 0
    more: bool = False


@dataclass(slots=True)
class _Batch:
    """A batch that has been processed.

    Attributes:
        last: the last message of each partition.
        in_flight: what a process may die with that works it off.
        offsets: what is committed with it.
    """

    messages: Sequence[Message]
    last: Mapping[TopicPartition, Message]
    in_flight: Sequence[str]
    output: Output
    offsets: Mapping[TopicPartition, Committed]


class _Dropped(Exception):
    """The commit that was under way did not come about, so what was built on it comes again."""


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
        self._survived: set[str] = set()
        self._service = service
        self._transactional_id = transactional_id
        self._quarantine = quarantine
        self._max_batch = max_batch
        self._linger_s = linger_s
        self._bounds = bounds
        self._limit = min(max_batch, FIRST_BATCH)
        self._stay_at: int | None = None
        self._took_ns = 0

        self._producer: TransactionalProducer | None = None
        self._begun = False
        self._began_at = 0
        self._aborts = 0
        self._committing: _Batch | None = None
        self._pipelined = False
        self._away: str | None = None
        self._owned: dict[TopicPartition, _Partition] = {}
        self._restoring: list[_Restoring] = []
        self._paused: set[TopicPartition] = set()

    # The turn ---

    def close(self) -> None:
        """Leaves the group, so that others take over at once. An open transaction is left to the broker."""
        try:
            self._await_commit()
        except Exception as error:
            log.warning("the last commit's outcome is not known", extra={"reason": str(error)})
        histories = [task.reader for task in self._restoring]
        self._restoring = []
        super().close()
        self._close(self._producer, *histories)

    def _turn(self) -> None:
        if self._producer is None:
            self._producer = self._new_producer()
        if not self._take_control():
            return
        self._subscribe(self._logic.topics())
        if self._consumer is None:
            self._wait(self._reason(), IDLE_WAIT_S)
            return
        if self._restoring:
            self._restore(self._consumer)
            return
        if self._work_off(self._consumer):
            return
        self._pause_all_but_first(self._consumer)
        self._offer_held(self._consumer)
        try:
            if self._rewinding:
                self._await_commit()
            self._rewind(self._consumer)
            messages = self._fetch(self._consumer)
            if messages:
                self._take(self._consumer, messages)
            else:
                self._await_commit()
        except _Dropped:
            pass
        self.waiting = self._reason()
        self._measure(self._consumer)

    def _positions(self) -> Mapping[TopicPartition, int]:
        return {tp: partition.position for tp, partition in self._owned.items()}

    # Control topics ---

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
            for partition in self._owned.values():
                partition.offer_at = 0
                partition.wait_s = HOLD_WAIT_S[0]
        return True

    # Partitions ---

    def on_assign(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to go on. A partition of which the group has committed nothing starts at its first record; that
        start is committed, so that later ones need not guess.
        """
        assert self._consumer is not None
        self._rebalanced = True
        self._await_commit_or_drop()
        membership = self._consumer.membership()
        self._member = membership.member_id
        committed = self._ask_committed(self._consumer, partitions)
        starts = {
            tp: Committed(self._patiently(self._consumer.earliest, tp))
            for tp, found in committed.items()
            if found is None
        }
        if starts and membership.member_id:
            try:
                self._transact(self._consumer, membership, starts, ())
                self._note_committed(starts)
            except Abortable as reason:
                self._abort(str(reason))
            except OutcomeUnknown as reason:
                self._replace_producer(str(reason))
        for tp, found in committed.items():
            offset, metadata = found or starts[tp]
            history, metadata = unpack(metadata)
            first_until = self._clock.perf_ns() + int(FIRST_S * 1e9)
            self._owned[tp] = _Partition(offset, metadata, history, first_until)
            if history.has_poison_record:
                self._owned[
                    tp
                ].poison_reason = f"{history.deaths} processes died on it, the last ones with it alone"
        if self._co_partitioned:
            _check_co_partitioned(self._owned, self._subscribed)
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
        self._await_commit_or_drop()
        for tp in partitions:
            self._owned.pop(tp, None)
            self._rewinding.discard(tp)
            self._paused.discard(tp)
        self._measure_no_more(partitions)
        stay = self._forget_history(partitions)
        self._logic.revoked([*partitions, *stay])
        if stay:
            self._tell_assigned(stay)

    # History ---

    def _tell_assigned(self, partitions: Collection[TopicPartition]) -> None:
        committed = {tp: Committed(self._owned[tp].position, self._owned[tp].metadata) for tp in partitions}
        history = self._logic.assigned(committed)
        if history:
            self._restoring.append(_Restoring(frozenset(partitions), history))

    def _forget_history(self, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
        """Gives up what is being restored for these partitions; and says for which others it was, too."""
        given_up = [task for task in self._restoring if not task.partitions.isdisjoint(partitions)]
        self._restoring = [task for task in self._restoring if task.partitions.isdisjoint(partitions)]
        for task in given_up:
            if task.reader is not None:
                task.reader.close()
        return {tp for task in given_up for tp in task.partitions} - set(partitions)

    def _restore(self, consumer: Consumer) -> None:
        """Reads some history and hands it to the logic; meanwhile this stays a member, and consumes nothing."""
        task = self._restoring[0]
        about = listed(names(task.partitions))
        self.waiting = f"reading again what {about} stand for{so_far(task.taken)}"
        self._stay(consumer)
        if task not in self._restoring:
            return
        if task.reader is None:
            log.info("reading history", extra={"of": names(task.history)})
            task.reader = self._backend.history(task.history)
        if not task.messages and not task.more:
            task.messages = list(task.reader.poll(IDLE_WAIT_S))
        if task.messages or task.more:
            some = prefix(task.messages, self._bounds.size)
            try:
                task.more = bool(self._logic.restore(some))
            except Unavailable as away:
                self._wait(str(away), HOLD_WAIT_S[0])
                return
            except StateLost as lost:
                self._start_anew(lost)
                return
            task.taken += len(some)
            del task.messages[: len(some)]
        elif task.reader.caught_up():
            task.reader.close()
            self._restoring.remove(task)

    def _stay(self, consumer: Consumer) -> None:
        """Stays a member, and consumes nothing."""
        new = self._owned.keys() - self._paused
        if new:
            consumer.pause(new)
            self._paused |= new
        try:
            consumer.consume(1, 0)
        finally:
            # Partitions that have just come are not paused yet.
            self._rewinding.update(self._owned)

    # What is due ---

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
        if self._restoring:
            return True
        membership = consumer.membership()
        if not membership.member_id or membership.member_id != self._member:
            return False
        self._await_commit_or_drop()
        if self._has_due.due():
            try:
                self._run_batch(consumer, membership, (), {})
            except Unavailable as away:
                self._wait(str(away), HOLD_WAIT_S[0])
                return False
        self._measure(consumer)
        return True

    def _pause_all_but_first(self, consumer: Consumer) -> None:
        """Lets the partitions that processes have died on come before the others, for a while. Otherwise each process
        could die on another, and none would be seen to have cost two.
        """
        now = self._clock.perf_ns()
        first = {
            tp
            for tp, p in self._owned.items()
            if p.crash_history.deaths and p.hold is None and now < p.first_until
        }
        paused = self._owned.keys() - first if first else set()
        if paused == self._paused:
            return
        resumed = self._paused - paused
        consumer.pause(paused - self._paused)
        consumer.resume([tp for tp in resumed if self._owned[tp].hold is None])
        self._rewinding |= resumed
        self._paused = paused

    def _offer_held(self, consumer: Consumer) -> None:
        now = self._clock.perf_ns()
        due = [
            tp
            for tp, p in self._owned.items()
            if p.hold is not None and p.offer_at <= now and tp not in self._paused
        ]
        if due:
            consumer.resume(due)
            self._rewinding.update(due)
            for tp in due:
                self._owned[tp].hold = None

    # The batch ---

    def _fetch(self, consumer: Consumer) -> Sequence[Message]:
        """A large batch when the log holds one, else what there is, else the first that comes in a few ms."""
        limit = 1 if any(p.crash_history.alone for p in self._owned.values()) else self._limit
        self._rebalanced = False
        try:
            messages = consumer.consume(limit, FILL_WAIT_S if self._backlog(consumer) >= limit else 0)
            if not messages:
                messages = consumer.consume(1, IDLE_WAIT_S)
                top_up = limit > 1
            else:
                top_up = self._linger_s > 0 and len(messages) < limit
            if messages and top_up:
                messages = [*messages, *consumer.consume(limit - len(messages), self._linger_s)]
        except Retriable:
            self._rewinding.update(self._owned)
            raise
        if self._rebalanced:
            # Which messages were read before the partitions moved, and which after, is not known.
            self._rewinding.update(self._owned)
            return ()
        return messages

    def _backlog(
        self, consumer: Consumer, under_way: Mapping[TopicPartition, Committed] | None = None
    ) -> int:
        """Records that wait, as far as is known without asking (markers count); at most a full batch."""
        if under_way is None:
            under_way = self._committing.offsets if self._committing else {}
        backlog = 0
        for tp, partition in self._owned.items():
            end = consumer.end(tp)
            if end is not None and partition.hold is None:
                backlog += max(0, end - (under_way[tp].offset if tp in under_way else partition.position))
                if backlog >= self._limit:
                    return self._limit
        return backlog

    def _take(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        """Processes what was consumed, of the partitions that are this instance's and at their positions."""
        # At once, so that it is the membership under which the messages were read.
        membership = consumer.membership()
        if not membership.member_id or membership.member_id != self._member:
            # Expelled, as after a stall. The client will say so in one of its next calls.
            self._rewinding.update(self._owned)
            return
        found: dict[tuple[str, int], Message] = {}
        for message in messages:
            found[message.topic(), message.partition()] = message
        last = {TopicPartition(*tp): message for tp, message in found.items()}
        unwanted = {
            tp
            for tp in last
            if tp not in self._owned
            or tp in self._rewinding
            or tp in self._paused
            or self._owned[tp].hold is not None
        }
        if unwanted:
            messages = [m for m in messages if (m.topic(), m.partition()) not in unwanted]
            last = {tp: message for tp, message in last.items() if tp not in unwanted}
        some = prefix(messages, self._bounds.size)
        if len(some) < len(messages):
            last = {TopicPartition(m.topic(), m.partition()): m for m in some}
        if messages:
            self._run_batch(consumer, membership, some, last)
        for message in messages[len(some) :]:
            self._rewinding.add(TopicPartition(message.topic(), message.partition()))
        self._rewinding &= self._owned.keys()

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
        if not self._plain(last):
            self._await_commit()
        try:
            in_flight = self._announce(consumer, membership, last)
            output = self._process(messages, last)
            self._await_commit()
            self._pipelined = output.pipelined
            offsets = self._offsets(output, last)
            batch = _Batch(messages, last, in_flight, output, offsets)
            letters = [dead_letters.to_record(letter, self._service) for letter in output.dead_letters]
            self._keep_within_bounds(messages, output, letters)
            if offsets:
                self._write(consumer, membership, output.records, letters)
                if self._may_go_ahead(consumer, batch):
                    assert self._producer is not None
                    self._producer.begin_commit(offsets, membership)
                    self._committing = batch
                    return
                self._send_offsets(offsets, membership)
                self._commit()
        except RecordRejected as refused:
            self._abort(str(refused))
            alone = [p for p in map(self._owned.get, last) if p is not None and p.crash_history.alone]
            if not alone or len(messages) > 1:
                raise
            alone[0].poison_reason = f"what comes of it is refused: {refused}"
        except Abortable as reason:
            self._abort(str(reason))
        except OutcomeUnknown as reason:
            self._replace_producer(str(reason))
        except StateLost as lost:
            self._await_commit()
            self._start_anew(lost)
        except DiskFailed:
            self._blame_nobody(consumer, membership, last)
            raise
        else:
            self._finish(consumer, batch)

    def _keep_within_bounds(
        self, messages: Sequence[Message], output: Output, letters: Sequence[Record]
    ) -> None:
        """Learns from a batch how many records the next may have.

        Raises:
            Abortable: it comes to more than one transaction may be, and is to be taken again in halves.
        """
        count, size = len(output.records) + len(letters), size_of(output.records) + size_of(letters)
        if not self._bounds.hold(count, size):
            if len(messages) > 1:
                self._limit = len(messages) // 2
                raise Abortable(f"{len(messages)} messages come to {count} records of {size} bytes: too many")
            log.warning("a large step", extra={"records": count, "bytes": size})
        took = self._took_ns / 1e9
        if took > self._bounds.seconds and len(messages) > 1:
            self._limit = max(1, int(len(messages) * self._bounds.seconds / took / 2))
        elif len(messages) >= self._limit and self._bounds.half().hold(count, size, took):
            self._limit = min(self._max_batch, 2 * self._limit)

    def _blame_nobody(
        self, consumer: Consumer, membership: Membership, last: Mapping[TopicPartition, Message]
    ) -> None:
        """Takes back what was announced: the process ends, and not of a record."""
        with suppress(LogError, _Dropped):
            self._await_commit()
            announcements = {
                tp: Committed(p.position, pack(p.crash_history, p.metadata))
                for tp in last
                if (p := self._owned[tp]).announced == p.position
            }
            if announcements and not self._begun:
                self._transact(consumer, membership, announcements, ())

    def _may_go_ahead(self, consumer: Consumer, batch: _Batch) -> bool:
        """Whether the next batch may be taken before this one is known to be committed: when a full one waits, and not
        for a few records, which are sooner answered together with those that come until then.
        """
        if not batch.output.pipelined or batch.output.paused or not self._plain(batch.last):
            return False
        return self._backlog(consumer, batch.offsets) >= self._limit

    def _plain(self, last: Mapping[TopicPartition, Message]) -> bool:
        """Whether a batch of these partitions is like those before it, so that it needs not wait for their commit."""
        partitions = [self._owned[tp] for tp in last]
        return self._away is None and all(p.proven and p.crash_history.deaths == 0 for p in partitions)

    def _await_commit(self) -> None:
        """Waits for the commit that is under way, if one is.

        Raises:
            _Dropped: nothing came of it, or that is not known; everything goes back to what is committed.
            RecordRejected: the log will never take what the batch wrote.
        """
        batch, self._committing = self._committing, None
        if batch is None:
            return
        assert self._consumer is not None
        try:
            self._commit()
        except RecordRejected as refused:
            self._abort(str(refused))
            raise
        except Abortable as reason:
            self._abort(str(reason))
        except OutcomeUnknown as reason:
            self._replace_producer(str(reason))
        else:
            self._finish(self._consumer, batch)
            return
        raise _Dropped

    def _await_commit_or_drop(self) -> None:
        with suppress(_Dropped):
            self._await_commit()

    def _finish(self, consumer: Consumer, batch: _Batch) -> None:
        """Takes note that a batch is committed."""
        self._aborts = 0
        self._pipelined = False
        self._note_committed(batch.offsets)
        for tp, committed in batch.offsets.items():
            partition = self._owned[tp]
            partition.proven |= committed.offset > partition.position
            self._advance(partition, committed)
        if batch.offsets:
            self._count(batch)
        if batch.offsets or not batch.messages:
            try:
                self._logic.committed(batch.output)
            except StateLost as lost:
                self._start_anew(lost)
        if not batch.output.paused:
            self._survived.update(batch.in_flight)
        self._hold(consumer, batch.output.paused)

    def _announce(
        self, consumer: Consumer, membership: Membership, last: Mapping[TopicPartition, Message]
    ) -> Sequence[str]:
        """Says in the log that this process takes up what others may have died on (see `crash_history`), and with
        what in flight, which it returns.
        """
        announcements = {}
        in_flight = self._in_flight(last)
        news = not self._survived.issuperset(in_flight)
        if news:
            self._await_commit()
        for tp, message in last.items():
            partition = self._owned[tp]
            history = partition.crash_history
            due = history.deaths > 0 or not partition.proven
            if news or (due and partition.announced != partition.position):
                history = history.announced(message.offset(), in_flight)
                announcements[tp] = Committed(partition.position, pack(history, partition.metadata))
        if announcements:
            self._transact(consumer, membership, announcements, ())
            for tp in announcements:
                self._owned[tp].announced = self._owned[tp].position
        return in_flight

    def _in_flight(self, last: Mapping[TopicPartition, Message]) -> Sequence[str]:
        if self._named is None:
            return ()
        suspects = {
            tp: Suspect(partition.crash_history.suspect, partition.crash_history.until)
            for tp, partition in self._owned.items()
            if partition.crash_history.suspect is not None
        }
        return self._named.in_flight({tp.topic for tp in last}, suspects)

    def _process(self, messages: Sequence[Message], last: Mapping[TopicPartition, Message]) -> Output:
        if self._away is not None:
            # Nothing is decided by what the logic knew before the control records that it could not take up
            # yet.
            return self._hold_all(self._away, last)
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
            self._await_commit()
            if not messages:
                raise
            return self._hold_all(str(away), last)
        except (StateLost, DiskFailed):
            raise
        except Exception as error:
            # By its number alone: the words of an error may be a record's.
            if isinstance(error, OSError) and (short := shortage_of(error)) is not None:
                self._await_commit()
                if not messages:
                    raise Unavailable(short) from error
                return self._hold_all(short, last)
            if alone is None or alone.poison_reason is not None:
                raise
            log.exception("a record is quarantined")
            alone.poison_reason = f"{type(error).__name__}: {error}"
            return self._hold_all(alone.poison_reason, last)
        finally:
            self._took_ns = self._clock.perf_ns() - started
            metrics.PROCESS_SECONDS.observe(self._took_ns / 1e9)

    def _hold_all(self, reason: str, last: Mapping[TopicPartition, Message]) -> Output:
        return Output(paused={tp: PausedPartition(self._owned[tp].position, reason) for tp in last})

    def _offsets(
        self, output: Output, last: Mapping[TopicPartition, Message]
    ) -> dict[TopicPartition, Committed]:
        """What the batch commits: up to its end, or up to where a partition is held."""
        if not output.paused.keys() <= last.keys():
            raise ValueError(f"held, but not in the batch: {names(output.paused.keys() - last.keys())}")
        offsets = {}
        for tp in output.metadata_of.keys() - last.keys():
            partition = self._owned[tp]
            offsets[tp] = Committed(
                partition.position, _packed(partition.crash_history, output.metadata_of[tp])
            )
        for tp, message in last.items():
            partition = self._owned[tp]
            hold = output.paused.get(tp)
            offset = message.offset() + 1 if hold is None else hold.offset
            if not partition.position <= offset <= message.offset() + 1:
                raise ValueError(f"held at {offset}, which is not in the batch of {names([tp])}")
            if offset == partition.position and partition.announced != offset and not output.records:
                continue
            facts = output.metadata_of.get(tp, output.metadata) or partition.metadata
            # Where nothing was processed, nothing is known about it either.
            history = (
                partition.crash_history
                if offset == partition.position
                else partition.crash_history.after(offset)
            )
            offsets[tp] = Committed(offset, _packed(history, facts))
        if not offsets and (output.records or output.dead_letters):
            raise ValueError("records without any fact to be committed with them")
        return offsets

    def _transact(
        self,
        consumer: Consumer,
        membership: Membership,
        offsets: Mapping[TopicPartition, Committed],
        records: Sequence[Record],
    ) -> None:
        """Writes the records and commits the offsets, both or neither.

        Raises:
            Abortable, Refused: neither; the transaction may still have to be aborted.
            OutcomeUnknown: not known.
        """
        self._write(consumer, membership, records)
        self._send_offsets(offsets, membership)
        self._commit()

    def _write(self, consumer: Consumer, membership: Membership, *records: Sequence[Record]) -> None:
        producer = self._producer
        assert producer is not None
        self._began_at = self._clock.perf_ns()
        with self._undecided():
            self._patiently(producer.begin, limit_s=DECIDE_S)
            self._begun = True
            for some in filter(None, records):
                producer.produce(some)
        if consumer.member_id() != membership.member_id:
            raise Abortable("no longer the member of the group that read the batch")

    def _send_offsets(self, offsets: Mapping[TopicPartition, Committed], membership: Membership) -> None:
        assert self._producer is not None
        with self._undecided():
            self._patiently(self._producer.send_offsets, offsets, membership, limit_s=DECIDE_S)

    @contextmanager
    def _undecided(self) -> Iterator[None]:
        """Nothing is committed yet, so a call that has been repeated for long enough gives the batch up."""
        try:
            yield
        except Retriable as error:
            raise Abortable(str(error)) from error
        except Fenced as error:
            raise self._kind(error) from error

    def _commit(self) -> None:
        """Commits, or waits for the commit that was begun."""
        assert self._producer is not None
        attempts = 0

        def commit(producer: TransactionalProducer) -> None:
            nonlocal attempts
            attempts += 1
            producer.commit()

        try:
            self._patiently(commit, self._producer, limit_s=DECIDE_S)
        except Retriable as error:
            raise OutcomeUnknown(str(error)) from error
        except Abortable as error:
            if attempts > 1:  # what came of the first attempt is not known
                raise OutcomeUnknown(str(error)) from error
            raise
        except Fenced as error:
            raise self._kind(error) from error
        self._begun = False
        metrics.COMMIT_SECONDS.observe((self._clock.perf_ns() - self._began_at) / 1e9)

    def _kind(self, fenced: Fenced) -> LogError:
        """A producer whose transaction has outlived its time is fenced off by the log, and a new one finds out."""
        return OutcomeUnknown(str(fenced)) if self._outlived() else fenced

    def _outlived(self) -> bool:
        """Whether the transaction has been open for longer than the log lets it, as when the log itself was away: then
        that is why its producer is fenced off, and a new one may go on. Otherwise another process has its id.
        """
        open_for_ms = (self._clock.perf_ns() - self._began_at) / 1e6
        return self._begun and open_for_ms >= TRANSACTION_TIMEOUT_MS

    def _advance(self, partition: _Partition, committed: Committed) -> None:
        partition.crash_history, partition.metadata = unpack(committed.metadata)
        partition.announced = -1
        if partition.position != committed.offset:
            partition.position = committed.offset
            partition.poison_reason = None
            partition.wait_s = HOLD_WAIT_S[0]

    def _hold(self, consumer: Consumer, holds: Mapping[TopicPartition, PausedPartition]) -> None:
        now = self._clock.perf_ns()
        for tp, hold in holds.items():
            partition = self._owned[tp]
            partition.hold = hold.reason
            partition.offer_at = now + int(partition.wait_s * 1e9)
            partition.wait_s = min(2 * partition.wait_s, HOLD_WAIT_S[1])
        if holds:
            consumer.pause(holds)

    def _abort(self, reason: str) -> None:
        """Drops the batch: nothing of it was committed, so everything owned goes back to its position."""
        metrics.ABORTS.inc()
        self._aborts += 1
        log.warning("batch given up", extra={"reason": reason})
        if self._begun:
            assert self._producer is not None
            try:
                self._patiently(self._producer.abort, limit_s=DECIDE_S)
            except (Retriable, Abortable, OutcomeUnknown, Fenced) as error:
                if isinstance(error, Fenced) and not self._outlived():
                    raise
                self._replace_producer(str(error))
                return
            self._begun = False
        self._rewinding.update(self._owned)
        if self._pipelined:
            self._assign_anew()
        if self._aborts > 1:
            self._wait(f"batches are given up: {reason}", min(0.005 * 2**self._aborts, 1.0))

    def _new_producer(self) -> TransactionalProducer:
        producer = self._backend.producer(self._transactional_id)
        self._patiently(producer.init)
        return producer

    def _replace_producer(self, reason: str) -> None:
        """Finds out what came of a transaction: only after a new producer's start do committed offsets tell.

        The logic cannot know whether its last batch counts, so it takes its partitions over as a new owner
        would.
        """
        log.warning("a transaction's outcome is unknown; starting a new producer", extra={"reason": reason})
        assert self._producer is not None
        self._producer.close()
        self._producer = self._new_producer()
        self._begun = False
        if not self._owned:
            return
        assert self._consumer is not None
        for tp, committed in self._ask_committed(self._consumer, list(self._owned)).items():
            partition = self._owned[tp]
            if committed is not None and committed.offset != partition.position:
                self._advance(partition, committed)
                partition.proven = True
            elif committed is not None:
                partition.metadata = unpack(committed.metadata)[1]
        self._rewinding.update(self._owned)
        self._assign_anew()

    def _start_anew(self, lost: StateLost) -> None:
        """After the logic has lost what it keeps."""
        log.warning("state is read again from the log", extra={"reason": str(lost)})
        self._rewinding.update(self._owned)
        self._assign_anew()

    def _assign_anew(self) -> None:
        """Lets the logic forget what it knows beyond the committed offsets."""
        self._pipelined = False
        self._forget_history(self._owned)
        self._logic.revoked(list(self._owned))
        self._tell_assigned(list(self._owned))

    # What others see of it ---

    def _reason(self) -> str | None:
        if self._away is not None:
            return self._away
        not_in_place = self._not_in_place(self._logic.topics())
        if not_in_place is not None:
            return not_in_place
        held = waiting_for((tp.topic, p.hold) for tp, p in self._owned.items() if p.hold is not None)
        return held or self._logic.waiting()

    def _count(self, batch: _Batch) -> None:
        messages, last, output = batch.messages, batch.last, batch.output
        metrics.BATCHES.inc()
        metrics.OUTPUTS.inc(len(output.records))
        for letter in output.dead_letters:
            metrics.DEAD_LETTERS.labels(letter.topic, letter.code).inc()
        done = messages
        if output.paused:
            ends = {tp: partition.position for tp, partition in self._owned.items()}
            done = [m for m in messages if m.offset() < ends[TopicPartition(m.topic(), m.partition())]]
        topics = {tp.topic for tp in last}
        counts = {topic: len(done) for topic in topics}
        if len(topics) > 1:
            counts = Counter(m.topic() for m in done)
        for topic, count in counts.items():
            metrics.RECORDS.labels(topic).inc(count)
        for tp, message in last.items():
            if tp not in output.paused:
                metrics.WATERMARK.labels(*map(str, tp)).set(message.timestamp()[1] / 1000)


def _packed(history: CrashHistory, facts: str) -> str:
    if len(facts.encode()) > MAX_FACTS_BYTES:
        raise ValueError(f"metadata of more than {MAX_FACTS_BYTES} bytes: {facts:.80}...")
    return pack(history, facts)


def _check_co_partitioned(owned: Collection[TopicPartition], topics: Collection[str]) -> None:
    """Stops the service unless it owns, of each partition number of a lane, either every topic's or none."""
    lanes: dict[str, set[str]] = {}
    for topic in topics:
        lanes.setdefault(topic.rpartition(".")[0], set()).add(topic)
    for tp in owned:
        for topic in lanes.get(tp.topic.rpartition(".")[0], ()):
            if TopicPartition(topic, tp.partition) not in owned:
                raise TailraceError(
                    f"{tp.topic}/{tp.partition} is this instance's, but {topic}/{tp.partition} is not: the "
                    f"topics of a lane need the same number of partitions, and all members of the group the "
                    f"same assignment strategy (range)"
                )
