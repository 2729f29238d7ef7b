"""One step of a partition: from where it stands, and a batch, to where it stands then.

A step takes in everything of its batch before anything is decided, and then decides what is due, in one order, as far
as its budget goes (docs/adr/0199). What has been written by the end of a step depends on what has been read by then,
on how far that has come (`progress`), and on nothing else; and the same history, read again in other steps, leads to
the same standing.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from tailrace.errors import BadRecord, StateLost
from tailrace.joiner import match, outcome
from tailrace.joiner.answered import answered, policy_action
from tailrace.joiner.intake import Intake, PendingFeedback
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.match import (
    AFTER_HORIZON,
    LABEL,
    MATCHED,
    NOBODY,
    UNMATCHED,
    Feedback,
    Prediction,
    Request,
    Revision,
)
from tailrace.joiner.packing import pack, unpack
from tailrace.joiner.partition_state import (
    ACTIONS,
    LABELS,
    PREDICTIONS,
    SHADOWS,
    Blocked,
    Facts,
    PartitionState,
)
from tailrace.joiner.progress import NEVER, Order, Progress, Spot, digest
from tailrace.joiner.store import STANDING, KeyValueStore, Look
from tailrace.streaming.bounds import Budget
from tailrace.streaming.records import DeadLetter, Message, PlainMessage, Record
from tailrace.streaming.watermark_records import mark

MARK_EVERY_MS = 1_000
"""Marks are written when a clock has moved on by so much: event time, not wall time."""
_AT_ONCE = 256
"""So many requests are read from the store at once."""

Item = TypeVar("Item")
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
        self._topics = lane.lane
        self._number = number
        self._partitions = partitions
        self._store = store
        self._before = standing
        self._standing = standing.copy()
        self._progress = self._standing.progress
        self._held = held
        self._budget = budget
        self._until = until
        self._is_all_read = is_all_read
        self._intake = Intake(lane, number, partitions, self._standing, skip_before)

        self._requests: dict[bytes, Request] = {}
        self._looks: list[Look] = []
        self._visited: set[bytes] = set()
        self._deletes: list[bytes] = []
        self._records = self._intake.records
        self._letters = self._intake.letters
        self._begun = False
        self._more = False

    def run(self, inputs: Mapping[str, Sequence[Message]]) -> StepResult:
        """Takes the messages of each input, each in order.

        Raises:
            Unavailable: the registry is away, or a contract has not been heard of yet.
        """
        for name, messages in inputs.items():
            self._intake.take(name, messages)
        standing = self._standing
        new = self._arrive()
        is_released = self._release()
        self._settle_all(new)
        held = self._apply()
        self._close()
        self._sweep(is_released)
        puts = self._puts()
        self._mark()
        return StepResult(
            standing,
            held,
            puts | {STANDING: _restartable(standing, held)},
            self._deletes,
            self._records,
            self._letters,
            {name: self._facts(name) for name in self._names(inputs)},
            self._more,
        )

    # What is due, as far as the budget goes ---

    def _each(
        self, items: Iterable[Item], request: Callable[[Item], bytes], spot: Callable[[Item], object]
    ) -> Iterator[Item]:
        """The items of which the requests are loaded; those of one spot all or not at all. ``_stopped`` afterwards says
        whether there are more.
        """
        self._stopped = False
        budget, requests = self._budget, self._requests
        last: Item | None = None
        items = iter(items)
        while some := list(islice(items, _AT_ONCE)):
            keys = [request(item) for item in some]
            new = [key not in requests for key in keys]
            if not self._begun or not budget.is_visited:
                self._load(keys)
            for item, key, is_new in zip(some, keys, new, strict=True):
                # What is done with a request costs little beside reading and writing it.
                is_spent = budget.spent or (is_new and budget.is_visited)
                if is_spent and self._begun and (last is None or spot(item) != spot(last)):
                    self._stopped = self._more = True
                    return
                if key not in requests:
                    self._load([key])
                self._begun = True
                last = item
                if is_new:
                    budget.visit()
                yield item

    def _load(self, keys: Sequence[bytes]) -> None:
        requests = self._requests
        missing = [key for key in dict.fromkeys(keys) if key not in requests]
        values = self._store.get_many(missing)
        try:
            requests |= {
                key: Request() if data is None else unpack(data)
                for key, data in zip(missing, values, strict=True)
            }
        except (ValueError, EOFError, TypeError) as error:
            self._store.throw_away(f"a request cannot be read: {error}")
            raise StateLost("a request in the store could not be read") from error

    def _looks_between(self, begin: Spot, end: Spot) -> Iterator[Look]:
        first, last = begin[0], end[0]
        new = sorted(look for look in self._looks if first <= look.time <= last and begin <= look.spot < end)
        return heapq.merge(self._store.looks(begin, end), new)

    # Deciding ---

    def _arrive(self) -> list[tuple[bytes, Prediction]]:
        rules = self._lane.rules
        self._load([request for request, _ in self._intake.arrived])
        new = [
            (key, prediction)
            for key, prediction in self._intake.arrived
            if match.add_prediction(self._requests[key], prediction, rules)
        ]
        for key, prediction in new:
            self._looks.append(Look(prediction.time + rules[prediction.contract].horizon, digest(key), key))
        return new

    def _settle_all(self, new: Sequence[tuple[bytes, Prediction]]) -> None:
        # Only when all are there: a shadow may have come before the champion of the same batch.
        for key, prediction in new:
            request = self._requests[key]
            if request.truths or prediction.champion is None or self._is_over(key, prediction):
                self._settle(key, request, prediction, request.truths)

    def _release(self) -> bool:
        """Tells shadow predictions who answered; whether all that is known by now has been told."""
        standing, progress = self._standing, self._progress
        sources, clock = dict(standing.sources), standing.clocks[PREDICTIONS]
        waited = progress.waited if clock == NEVER else max(progress.waited, (clock + 1, 0, 0))
        if self._until is not None:
            told = self._until.released
            sources = {p: min(offset, told.get(p, -1)) for p, offset in sources.items()}
            waited = min(waited, self._until.waited)
        free = [one for one in standing.blocked.items() if sources.get(one[1][1], -1) >= one[1][2]]
        for one in self._waiting(free, lambda one: one[1][1:3]):
            _, partition, offset, _ = one[1]
            progress.released[partition] = offset
            self._free(one)
        if self._stopped:
            return False
        for partition, offset in sources.items():
            progress.released[partition] = max(offset, progress.released.get(partition, -1))
        late = [one for one in standing.blocked.items() if (one[1][3], *one[1][1:3]) < waited]
        for one in self._waiting(late, lambda one: (one[1][3], *one[1][1:3])):
            _, partition, offset, until = one[1]
            progress.waited = (until, partition, offset + 1)
            self._free(one)
        if self._stopped:
            return False
        progress.waited = waited
        return True

    def _waiting(
        self, some: Iterable[_Waiting], spot: Callable[[_Waiting], tuple[int, ...]]
    ) -> Iterator[_Waiting]:
        return self._each(sorted(some, key=spot), lambda one: one[0][0], spot)

    def _free(self, one: _Waiting) -> None:
        key, prediction_id = one[0]
        request = self._requests[key]
        for prediction in request.predictions:
            if prediction.id == prediction_id:
                self._settle(key, request, prediction, ())

    def _apply(self) -> list[PendingFeedback]:
        """Applies what can be applied now, in order; gives what has to wait."""
        progress, waiting = self._progress, sorted([*self._held, *self._intake.held])
        target = self._target((self._standing.watermark(self._partitions), 0, 0, 0))
        ready = bisect_left(waiting, target, key=lambda one: one.order)
        done = 0
        for one in self._each(waiting[:ready], lambda one: one.request, lambda one: one.order):
            self._apply_one(one)
            done += 1
        progress.applied = waiting[done].order if self._stopped else target
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
            self._looks.append(Look(truth.effective + self._lane.horizon, digest(key), key))
        for prediction in request.predictions:
            self._settle(key, request, prediction, (truth,))

    def _settle(
        self, key: bytes, request: Request, prediction: Prediction, truths: Sequence[Feedback]
    ) -> None:
        """Writes what further truths, and the end of its horizon, make of a prediction; of a shadow's, once it is known
        who answered.
        """
        rules = self._lane.rules[prediction.contract]
        is_over = self._progress.is_over(prediction.time + rules.horizon, key)
        if prediction.champion is None:
            if not is_over and not any(match.matches(prediction, truth, rules) for truth in request.truths):
                return
            if not self._find_champion(request, prediction):
                until = prediction.time + rules.horizon
                self._standing.blocked[key, prediction.id] = (prediction.known, *prediction.source, until)
                return
            self._standing.blocked.pop((key, prediction.id), None)
            truths = request.truths
        for revision in match.fold(prediction, truths, rules):
            self._write(revision)
        if is_over and not prediction.closed:
            plan = self._lane.plan(prediction.contract)
            action = policy_action(self._lane.codec, plan, prediction) if rules.known_only_for else ""
            end = match.close(prediction, rules, action)
            if end is not None:
                self._write(end)

    def _is_over(self, key: bytes, prediction: Prediction) -> bool:
        return self._progress.is_over(prediction.time + self._lane.rules[prediction.contract].horizon, key)

    def _find_champion(self, request: Request, shadow: Prediction) -> bool:
        """Whether it has been told by now who answered the request that was scored in shadow."""
        rules = self._lane.rules
        if not self._progress.covers(shadow.source, shadow.time + rules[shadow.contract].horizon):
            return False
        champion = match.find_champion(request, shadow, rules)
        if champion is None:
            shadow.champion = NOBODY
        else:
            shadow.champion = answered(self._lane.codec, self._lane.plan(champion.contract), champion)
        return True

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
        due = self._looks_between(progress.closed, target)
        for look in self._each(due, lambda look: look.request, lambda look: look.spot):
            progress.closed = (look.time, look.digest + 1)
            request = self._requests[look.request]
            for prediction in request.predictions:
                if not prediction.closed and self._is_over(look.request, prediction):
                    self._settle(look.request, request, prediction, ())
        if not self._stopped:
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
        due = self._looks_between(progress.swept, target)
        for look in self._each(due, lambda look: look.request, lambda look: look.spot):
            progress.swept = (look.time, look.digest + 1)
            self._forget(look, target[0])
        if not self._stopped:
            progress.swept = target

    def _forget(self, look: Look, until: int) -> None:
        lane, request, name = self._lane, self._requests[look.request], look.key()
        self._deletes.append(name)
        self._visited.add(name)
        for prediction in request.predictions:
            if prediction.champion is None:
                self._find_champion(request, prediction)
        for truth in match.prune(request, look.time, lane.horizon, lane.rules):
            self._drop(truth)
        # Predictions, and truths that came before one, have a look of their own ahead of them.
        if request.truths:
            due = match.due(request, lane.horizon, lane.rules)
            if due < until and not request.predictions and all(t.fate == MATCHED for t in request.truths):
                # They would only be looked at in this same sweep, and nothing would be said of them.
                request.truths = []
                return
            self._looks.append(Look(due, look.digest, look.request))

    def _drop(self, truth: Feedback) -> None:
        what = "label" if truth.kind == LABEL else "action"
        if truth.fate == AFTER_HORIZON:
            bad = BadRecord("after-horizon", f"the {what} came after its request's horizon")
        else:
            bad = BadRecord(
                "no-request", f"no request of this id was answered within the horizon of the {what}"
            )
        self._letters.append(
            DeadLetter(self._topics.dead_letters, _message(truth), bad.code, bad.reason, bad.field)
        )

    # Writing ---

    def _write(self, revision: Revision) -> None:
        prediction = revision.prediction
        value = outcome.encode(self._lane.plans[prediction.contract].outcome_header, revision)
        self._records.append(Record(self._topics.outcomes, value, prediction.key, (), self._number))
        self._budget.take(1, len(value))

    def _puts(self) -> dict[bytes, bytes]:
        puts = {}
        for key, request in self._requests.items():
            if request.predictions or request.truths:
                puts[key] = pack(request)
            else:
                self._deletes.append(key)
        # What is to be looked at has to lie ahead of where looking has come to.
        swept = self._progress.swept
        for look in self._looks:
            if look.request in puts:
                if look.time <= swept[0] and look.spot < swept:
                    if look.key() in self._visited:
                        continue
                    look = look._replace(time=swept[0] + 1)
                puts[look.key()] = b""
        return puts

    def _mark(self) -> None:
        """Says how far this partition has come: to the others, and to who reads the outcomes."""
        standing = self._standing
        for name in (LABELS, ACTIONS):
            clock = standing.clocks[name]
            if clock >= standing.announced[name] + MARK_EVERY_MS:
                standing.announced[name] = clock
                stream = f"{name}/{self._number}"
                self._records += [
                    mark(self._topics.rekeyed, other, clock, stream=stream)
                    for other in range(self._partitions)
                    if other != self._number
                ]
        waiting = [known for known, *_ in standing.blocked.values()]
        for name in (PREDICTIONS, SHADOWS):
            time = min(self._progress.time, standing.clocks[name])
            if name == SHADOWS:
                time = min([time, *waiting])
            if time >= standing.marked[name] + MARK_EVERY_MS:
                standing.marked[name] = time
                self._records.append(mark(self._topics.outcomes, self._number, time, stream=name))

    def _names(self, inputs: Mapping[str, Sequence[Message]]) -> set[str]:
        """The inputs with whose offsets something is to be committed."""
        before, progress, names = self._before.progress, self._progress, set(inputs)
        is_news = before != progress or bool(self._records or self._letters)
        if before.released != progress.released or (not inputs and is_news):
            names.add(PREDICTIONS)
        return names

    def _facts(self, name: str) -> str:
        standing, lane = self._standing, self._lane
        floor = min(standing.floor(), self._progress.closed[0] - 1, self._progress.swept[0] + lane.lateness)
        before = NEVER if standing.floor() == NEVER else floor - 2 * lane.horizon - lane.lateness
        clock, start = standing.restart(name, before)
        sources = standing.sources if name == PREDICTIONS else {}
        progress = self._progress if name == PREDICTIONS else replace(self._progress, released={})
        return Facts(start, clock, progress, sources).to_metadata()


def _restartable(standing: PartitionState, held: Sequence[PendingFeedback]) -> bytes:
    """The standing for the store. What is held is not stored: inputs are read again from the first that is."""
    found = standing.copy()
    for one in sorted(held, key=lambda one: -one.offset):
        found.offsets[one.input] = one.offset
        found.clocks[one.input] = one.before
    return found.pack()


def _message(truth: Feedback) -> Message:
    """The message that a label or action came in, from what is kept of it."""
    topic, partition, offset = truth.said.source.rsplit("/", 2)
    assert truth.original is not None
    key, value, headers, appended = truth.original
    return PlainMessage(topic, int(partition), int(offset), value, key, headers or (), appended)
