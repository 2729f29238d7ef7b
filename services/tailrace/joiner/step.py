"""One step of a partition: from where it stands, and a batch, to where it stands then.

A step takes in everything of its batch before anything is decided, and then decides what is due, in one order, as far
as its budget goes (docs/adr/0199). What has been written by the end of a step depends on what has been read by then,
on how far that has come (`progress`), and on nothing else; and the same history, read again in other steps, leads to
the same standing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tailrace.joiner import match, watermarks
from tailrace.joiner.commit import offset_metadata, restartable
from tailrace.joiner.intake import Intake, PendingFeedback
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.loaded_requests import LoadedRequests
from tailrace.joiner.match import MATCHED, UNMATCHED, Feedback, Prediction
from tailrace.joiner.outcome_writer import OutcomeWriter
from tailrace.joiner.partition_state import PREDICTIONS, Blocked, PartitionState
from tailrace.joiner.progress import NEVER, Order, Progress, Wait
from tailrace.joiner.store import STANDING, KeyValueStore, Look
from tailrace.joiner.unmatched import unmatched
from tailrace.streaming.bounds import Budget
from tailrace.streaming.records import DeadLetter, Message, Record

_Waiting = tuple[tuple[bytes, bytes], Blocked]


@dataclass(slots=True)
class StepResult:
    """What a step comes to; it takes effect when it is committed.

    ``more`` says that more is due than its budget was for.
    """

    standing: PartitionState
    held: list[PendingFeedback]
    puts: dict[bytes, bytes]
    deletes: list[bytes]
    records: list[Record]
    letters: list[DeadLetter]
    metadata: dict[str, str]
    more: bool


class PartitionStep:
    """Makes one step. Nothing that it is given is changed.

    Args:
        number: of the partition.
        partitions: how many the lane has.
        until: while history is read again: how far what is due was worked off by who read it before.
        is_all_read: there is no more history to come.
    """

    def __init__(
        self,
        lane: LaneContracts,
        number: int,
        partitions: int,
        store: KeyValueStore,
        standing: PartitionState,
        held: Sequence[PendingFeedback],
        budget: Budget,
        *,
        skip_before: Order = (NEVER, 0, 0, 0),
        until: Progress | None = None,
        is_all_read: bool = False,
    ) -> None:
        self._lane = lane
        self._number = number
        self._partitions = partitions
        self._before = standing.progress
        self._standing = standing.copy()
        self._progress = self._standing.progress
        self._held = held
        self._until = until
        self._is_all_read = is_all_read
        self._intake = Intake(lane, number, partitions, self._standing, skip_before)
        self._requests = LoadedRequests(store, budget)
        self._outcomes = OutcomeWriter(lane, number, self._standing, budget, self._intake.records)

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
        self._settle_all(new)
        held = self._apply()
        self._close()
        self._sweep(is_released)
        return self._result(inputs, held)

    def _result(self, inputs: Mapping[str, Sequence[Message]], held: list[PendingFeedback]) -> StepResult:
        standing, lane = self._standing, self._lane
        records, letters = self._intake.records, self._intake.letters
        puts, deletes = self._requests.changes(self._progress.swept)
        records += watermarks.to_others(lane.lane, self._number, self._partitions, standing)
        records += watermarks.to_readers(lane.lane, self._number, standing)
        puts[STANDING] = restartable(standing, held)
        metadata = offset_metadata(lane, standing, self._before, inputs.keys(), bool(records or letters))
        return StepResult(standing, held, puts, deletes, records, letters, metadata, self._requests.has_more)

    # What is due, as far as the budget goes ---

    def _arrive(self) -> list[tuple[bytes, Prediction]]:
        rules = self._lane.rules
        self._requests.load([request for request, _ in self._intake.arrived])
        new = [
            (key, prediction)
            for key, prediction in self._intake.arrived
            if match.add_prediction(self._requests[key], prediction, rules)
        ]
        for key, prediction in new:
            self._requests.look_at(key, prediction.time + rules[prediction.contract].horizon)
        return new

    def _settle_all(self, new: Sequence[tuple[bytes, Prediction]]) -> None:
        # Only when all are there: a shadow may have come before the champion of the same batch.
        for key, prediction in new:
            request = self._requests[key]
            if request.truths or prediction.champion is None or self._outcomes.is_over(key, prediction):
                self._outcomes.revise(key, request, prediction, request.truths)

    def _release(self) -> bool:
        """Tells shadow predictions who answered; whether all that is known by now has been told."""
        standing, progress = self._standing, self._progress
        sources, clock = standing.sources, standing.clocks[PREDICTIONS]
        waited = progress.waited if clock == NEVER else max(progress.waited, (clock + 1, 0, 0))
        if self._until is not None:
            released = self._until.released
            sources = {p: min(offset, released.get(p, -1)) for p, offset in sources.items()}
            waited = min(waited, self._until.waited)
        return self._release_answered(sources) and self._release_unanswered(waited)

    def _release_answered(self, sources: Mapping[int, int]) -> bool:
        """Those whose champion has come as far; ``sources`` says up to where, by partition."""
        released = self._progress.released
        free = [one for one in self._standing.blocked.items() if sources.get(one[1][1], -1) >= one[1][2]]
        for one in self._waiting(free, lambda one: one[1][1:3]):
            _, partition, offset, _ = one[1]
            released[partition] = offset
            self._free(one)
        if self._requests.is_stopped:
            return False
        for partition, offset in sources.items():
            released[partition] = max(offset, released.get(partition, -1))
        return True

    def _release_unanswered(self, waited: Wait) -> bool:
        """Those that have waited for as long as they do."""
        late = [one for one in self._standing.blocked.items() if (one[1][3], *one[1][1:3]) < waited]
        for one in self._waiting(late, lambda one: (one[1][3], *one[1][1:3])):
            _, partition, offset, until = one[1]
            self._progress.waited = (until, partition, offset + 1)
            self._free(one)
        if not self._requests.is_stopped:
            self._progress.waited = waited
        return not self._requests.is_stopped

    def _waiting(
        self, some: Iterable[_Waiting], spot: Callable[[_Waiting], tuple[int, ...]]
    ) -> Iterator[_Waiting]:
        return self._requests.each(sorted(some, key=spot), lambda one: one[0][0], spot)

    def _free(self, one: _Waiting) -> None:
        key, prediction_id = one[0]
        request = self._requests[key]
        for prediction in request.predictions:
            if prediction.id == prediction_id:
                self._outcomes.revise(key, request, prediction, ())

    def _apply(self) -> list[PendingFeedback]:
        """Applies what can be applied now, in order; gives what has to wait."""
        progress, waiting = self._progress, sorted([*self._held, *self._intake.held])
        target = self._target((self._standing.watermark(self._partitions), 0, 0, 0))
        ready = bisect_left(waiting, target, key=lambda one: one.order)
        done = 0
        for one in self._requests.each(waiting[:ready], lambda one: one.request, lambda one: one.order):
            self._apply_one(one)
            done += 1
        progress.applied = waiting[done].order if self._requests.is_stopped else target
        return waiting[done:]

    def _target(self, known: Order) -> Order:
        if self._until is not None:
            known = self._until.applied if self._is_all_read else min(known, self._until.applied)
        return max(known, self._progress.applied)

    def _apply_one(self, one: PendingFeedback) -> None:
        key = one.request
        request = self._requests[key]
        truth = Feedback(one.order[0], one.order[1], one.said, UNMATCHED, one.original)
        match.add_truth(request, truth, self._lane.rules)
        if truth.fate != MATCHED:
            self._requests.look_at(key, truth.effective + self._lane.horizon)
        for prediction in request.predictions:
            self._outcomes.revise(key, request, prediction, (truth,))

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
        due = self._requests.looks_between(progress.closed, target)
        for look in self._requests.each(due, lambda look: look.request, lambda look: look.spot):
            progress.closed = (look.time, look.digest + 1)
            request = self._requests[look.request]
            for prediction in request.predictions:
                if not prediction.closed and self._outcomes.is_over(look.request, prediction):
                    self._outcomes.revise(look.request, request, prediction, ())
        if not self._requests.is_stopped:
            progress.closed = target

    def _sweep(self, is_released: bool) -> None:
        """Forgets what nothing can match any more; truths that never matched become dead letters."""
        progress, lane = self._progress, self._lane
        floor = self._standing.floor()
        target = (NEVER, 0) if floor == NEVER else (floor - lane.lateness + 1, 0)
        if self._until is not None:
            is_exact = self._is_all_read and self._until.is_exact
            target = self._until.swept if is_exact else min(target, self._until.swept)
        target = min(target, progress.closed)
        if target <= progress.swept or not is_released:
            return
        due = self._requests.looks_between(progress.swept, target)
        for look in self._requests.each(due, lambda look: look.request, lambda look: look.spot):
            progress.swept = (look.time, look.digest + 1)
            self._forget(look, target[0])
        if not self._requests.is_stopped:
            progress.swept = target

    def _forget(self, look: Look, until: int) -> None:
        lane, request = self._lane, self._requests[look.request]
        self._requests.looked_at(look)
        for prediction in request.predictions:
            if prediction.champion is None:
                self._outcomes.find_champion(request, prediction)
        for truth in match.prune(request, look.time, lane.horizon, lane.rules):
            self._intake.letters.append(unmatched(lane.lane.dead_letters, truth))
        # Predictions, and truths that came before one, have a look of their own ahead of them.
        if request.truths:
            due = match.due(request, lane.horizon, lane.rules)
            if due < until and not request.predictions and all(t.fate == MATCHED for t in request.truths):
                # They would only be looked at in this same sweep, and nothing would be said of them.
                request.truths = []
                return
            self._requests.look_at(look.request, due)
