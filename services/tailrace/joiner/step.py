"""One step of a partition: from where it stands, and a batch, to where it stands then.

A step takes in everything of its batch before anything is decided, and then decides what is due, in one order, as far
as its budget goes (docs/adr/0199). What has been written by the end of a step depends on what has been read by then,
on how far that has come (`progress`), and on nothing else; and the same history, read again in other steps, leads to
the same state.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from tailrace.joiner import match, watermarks
from tailrace.joiner.commit import offset_metadata, restartable
from tailrace.joiner.intake import Intake, PendingFeedback
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.loaded_requests import LoadedRequests
from tailrace.joiner.match import MATCHED, UNMATCHED, Feedback
from tailrace.joiner.outcome_writer import OutcomeWriter
from tailrace.joiner.partition_state import PREDICTIONS, Blocked, PartitionState
from tailrace.joiner.progress import NEVER, Order, Progress, Wait
from tailrace.joiner.read_predictions import Answer
from tailrace.joiner.store import STATE, KeyValueStore, Timer
from tailrace.joiner.unmatched import unmatched
from tailrace.streaming.bounds import Budget
from tailrace.streaming.records import DeadLetter, Message, Record

_Waiter = tuple[tuple[bytes, bytes], Blocked]


@dataclass(slots=True)
class StepResult:
    """What a step comes to; it takes effect when it is committed.

    ``more`` says that more is due than its budget was for.
    """

    state: PartitionState
    pending: list[PendingFeedback]
    puts: dict[bytes, bytes]
    deletes: list[bytes]
    records: list[Record]
    letters: list[DeadLetter]
    metadata: dict[str, str]
    more: bool


class PartitionStep:
    """Makes one step of the partition ``number`` of so many. Nothing that it is given is changed.

    Args:
        until: while history is read again: how far what is due was worked off by who read it before.
        is_all_read: there is no more history to come.
    """

    def __init__(
        self,
        lane: LaneContracts,
        number: int,
        partitions: int,
        store: KeyValueStore,
        state: PartitionState,
        pending: Sequence[PendingFeedback],
        budget: Budget,
        skip_before: Order,
        until: Progress | None,
        is_all_read: bool,
    ) -> None:
        self._lane = lane
        self._number = number
        self._partitions = partitions
        self._before = state.progress
        self._state = state.copy()
        self._progress = self._state.progress
        self._pending = pending
        self._until = until
        self._is_all_read = is_all_read
        self._intake = Intake(lane, number, partitions, self._state, skip_before)
        self._requests = LoadedRequests(store, budget)
        self._outcomes = OutcomeWriter(lane, number, self._state, budget, self._intake.records)

    def run(self, inputs: Mapping[str, Sequence[Message]]) -> StepResult:
        """Takes the messages of each input, each in order.

        Raises:
            Unavailable: the registry is away, or a contract has not been heard of yet.
            StateLost: the store is damaged.
        """
        for name, messages in inputs.items():
            self._intake.take(name, messages)
        new = self._arrive()
        is_released = self._release()
        self._revise_all(new)
        pending = self._apply()
        self._close()
        self._sweep(is_released)
        return self._result(inputs, pending)

    def _result(self, inputs: Mapping[str, Sequence[Message]], pending: list[PendingFeedback]) -> StepResult:
        state, lane = self._state, self._lane
        records, letters = self._intake.records, self._intake.letters
        puts, deletes = self._requests.changes(self._progress.swept)
        records += watermarks.to_others(lane.lane, self._number, self._partitions, state)
        records += watermarks.to_readers(lane.lane, self._number, state)
        puts[STATE] = restartable(state, pending)
        metadata = offset_metadata(lane, state, self._before, inputs.keys(), bool(records or letters))
        return StepResult(state, pending, puts, deletes, records, letters, metadata, self._requests.has_more)

    # What is due, as far as the budget goes ---

    def _arrive(self) -> list[Answer]:
        requests, arrived, rules = self._requests, self._intake.arrived, self._lane.rules
        requests.load([key for key, _ in arrived])
        new = [(key, p) for key, p in arrived if match.add_prediction(requests[key], p, rules)]
        for key, prediction in new:
            requests.set_timer(key, prediction.time + rules[prediction.contract].horizon)
        return new

    def _revise_all(self, new: Sequence[Answer]) -> None:
        # Only when all are there: a shadow may have come before the champion of the same batch.
        for key, prediction in new:
            request = self._requests[key]
            if request.feedback or prediction.champion is None or self._outcomes.is_over(key, prediction):
                self._outcomes.revise(key, request, prediction, request.feedback)

    def _release(self) -> bool:
        """Writes what waited for who answered; whether none is left for whom that is known by now."""
        sources, stream_time = self._state.sources, self._state.stream_times[PREDICTIONS]
        waited = self._progress.waited
        if stream_time != NEVER:
            waited = max(waited, (stream_time + 1, 0, 0))
        if self._until is not None:
            released = self._until.released
            sources = {p: min(offset, released.get(p, -1)) for p, offset in sources.items()}
            waited = min(waited, self._until.waited)
        return self._release_answered(sources) and self._release_unanswered(waited)

    def _release_answered(self, sources: Mapping[int, int]) -> bool:
        """Those whose champion has come as far; ``sources`` says up to where, by partition."""
        released = self._progress.released
        answered = [
            waiter for waiter in self._state.blocked.items() if sources.get(waiter[1][1], -1) >= waiter[1][2]
        ]
        for waiter in self._waiting(answered, lambda waiter: waiter[1][1:3]):
            _, partition, offset, _ = waiter[1]
            released[partition] = offset
            self._free(waiter)
        if not self._requests.is_stopped:
            for partition, offset in sources.items():
                released[partition] = max(offset, released.get(partition, -1))
        return not self._requests.is_stopped

    def _release_unanswered(self, waited: Wait) -> bool:
        """Those that have waited for as long as they do."""
        late = [waiter for waiter in self._state.blocked.items() if (waiter[1][3], *waiter[1][1:3]) < waited]
        for waiter in self._waiting(late, lambda waiter: (waiter[1][3], *waiter[1][1:3])):
            _, partition, offset, until = waiter[1]
            self._progress.waited = (until, partition, offset + 1)
            self._free(waiter)
        if not self._requests.is_stopped:
            self._progress.waited = waited
        return not self._requests.is_stopped

    def _waiting(
        self, waiters: Iterable[_Waiter], spot: Callable[[_Waiter], tuple[int, ...]]
    ) -> Iterator[_Waiter]:
        return self._requests.each(sorted(waiters, key=spot), lambda waiter: waiter[0][0], spot)

    def _free(self, waiter: _Waiter) -> None:
        key, prediction_id = waiter[0]
        request = self._requests[key]
        for prediction in request.predictions:
            if prediction.id == prediction_id:
                self._outcomes.revise(key, request, prediction, ())

    def _apply(self) -> list[PendingFeedback]:
        """Applies what can be applied now, in order; gives what has to wait."""
        pending = sorted([*self._pending, *self._intake.pending])
        target = self._target((self._state.watermark(self._partitions), 0, 0, 0))
        ready = pending[: bisect_left(pending, target, key=attrgetter("order"))]
        done = 0
        for feedback in self._requests.each(ready, attrgetter("request"), attrgetter("order")):
            self._apply_one(feedback)
            done += 1
        self._progress.applied = pending[done].order if self._requests.is_stopped else target
        return pending[done:]

    def _target(self, known: Order) -> Order:
        if self._until is not None:
            known = self._until.applied if self._is_all_read else min(known, self._until.applied)
        return max(known, self._progress.applied)

    def _apply_one(self, pending: PendingFeedback) -> None:
        key, (effective, kind, *_) = pending.request, pending.order
        request = self._requests[key]
        feedback = Feedback(effective, kind, pending.content, UNMATCHED, pending.original)
        match.add_feedback(request, feedback, self._lane.rules)
        if feedback.fate != MATCHED:
            self._requests.set_timer(key, effective + self._lane.horizon)
        for prediction in request.predictions:
            self._outcomes.revise(key, request, prediction, (feedback,))

    def _close(self) -> None:
        """Ends the waiting for labels whose horizon is over."""
        progress, time = self._progress, self._progress.applied[0]
        if time == NEVER:
            return
        target = (time + 1, 0)
        if self._until is not None:
            target = min(target, self._until.closed)
        if target <= progress.closed:
            return
        for timer in self._requests.due(progress.closed, target):
            progress.closed = (timer.time, timer.digest + 1)
            request = self._requests[timer.request]
            for prediction in request.predictions:
                if not prediction.closed and self._outcomes.is_over(timer.request, prediction):
                    self._outcomes.revise(timer.request, request, prediction, ())
        if not self._requests.is_stopped:
            progress.closed = target

    def _sweep(self, is_released: bool) -> None:
        """Forgets what nothing can match any more; feedback that never matched becomes dead letters."""
        progress, floor = self._progress, self._state.floor()
        target = (NEVER, 0) if floor == NEVER else (floor - self._lane.lateness + 1, 0)
        if self._until is not None:
            is_exact = self._is_all_read and self._until.is_exact
            target = self._until.swept if is_exact else min(target, self._until.swept)
        target = min(target, progress.closed)
        if target <= progress.swept or not is_released:
            return
        for timer in self._requests.due(progress.swept, target):
            progress.swept = (timer.time, timer.digest + 1)
            self._forget(timer, target[0])
        if not self._requests.is_stopped:
            progress.swept = target

    def _forget(self, timer: Timer, until: int) -> None:
        lane, request = self._lane, self._requests[timer.request]
        self._requests.clear_timer(timer)
        for prediction in request.predictions:
            if prediction.champion is None:
                self._outcomes.find_champion(request, prediction)
        unmatched_feedback = match.prune(request, timer.time, lane.horizon, lane.rules)
        self._intake.letters += [
            unmatched(lane.lane.dead_letters, feedback, lane.contract_of(timer.request))
            for feedback in unmatched_feedback
        ]
        # Predictions, and feedback that came before one, have a timer of their own ahead of them.
        if request.feedback:
            due = match.due(request, lane.horizon, lane.rules)
            if due < until and not request.predictions and all(f.fate == MATCHED for f in request.feedback):
                # Their timer would be run in this same sweep, and nothing would come of it.
                request.feedback = []
                return
            self._requests.set_timer(timer.request, due)
