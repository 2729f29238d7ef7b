"""One step of a partition: from where it stands, and a batch, to where it stands then.

A step takes in everything of its batch before anything is decided, and then decides everything that can be. So what
has been written by the end of a step depends on what has been read by then, and on nothing else; and the same
history, read again in other steps, leads to the same standing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tailrace.joiner import match, outcome
from tailrace.joiner.answered import answered, policy_action
from tailrace.joiner.intake import Held, Intake
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.match import (
    AFTER_HORIZON,
    LABEL,
    MATCHED,
    NOBODY,
    UNMATCHED,
    Prediction,
    Request,
    Revision,
    Truth,
)
from tailrace.joiner.packing import pack, unpack
from tailrace.joiner.standing import (
    ACTIONS,
    LABELS,
    NEVER,
    PREDICTIONS,
    SHADOWS,
    Facts,
    Standing,
)
from tailrace.joiner.store import STANDING, Store, look_key
from tailrace.kit.errors import BadRecord, StateLost
from tailrace.kit.marks import mark
from tailrace.kit.messages import DeadLetter, Message, PlainMessage, Record

MARK_EVERY_MS = 1_000
"""Marks are written when a clock has moved on by so much: event time, not wall time."""


@dataclass(slots=True)
class Result:
    """What a step comes to; it takes effect when it is committed."""

    standing: Standing
    held: list[Held]
    puts: dict[bytes, bytes]
    deletes: list[bytes]
    records: list[Record]
    letters: list[DeadLetter]
    metadata: dict[str, str]


class Step:
    """Makes one step. Nothing that it is given is changed.

    Args:
        number: of the partition.
        partitions: how many the lane has.
        skip_before: truths of history from before this have been applied.
        applied: how far truths have been applied, where that is known from elsewhere.
    """

    def __init__(
        self,
        lane: LaneContracts,
        number: int,
        partitions: int,
        store: Store,
        standing: Standing,
        held: Sequence[Held],
        *,
        skip_before: int = NEVER,
        applied: int = NEVER,
    ) -> None:
        self._lane = lane
        self._topics = lane.lane
        self._number = number
        self._partitions = partitions
        self._store = store
        self._standing = standing.copy()
        self._held = held
        self._applied = applied
        self._intake = Intake(lane, number, partitions, self._standing, skip_before)

        self._requests: dict[bytes, Request] = {}
        self._resolved: list[bytes] = []
        self._looks: list[tuple[int, bytes]] = []
        self._deletes: list[bytes] = []
        self._records = self._intake.records
        self._letters = self._intake.letters

    def run(self, inputs: Mapping[str, Sequence[Message]]) -> Result:
        """Takes the messages of each input, each in order.

        Raises:
            Retry: the registry is away, or a contract has not been heard of yet.
        """
        for name, messages in inputs.items():
            self._intake.take(name, messages)
        standing = self._standing
        standing.applied = max(standing.applied, self._applied, standing.watermark(self._partitions))
        ready, held = self._ready()
        self._load([request for request, _ in self._intake.arrived] + [one.request for one in ready])
        self._arrive()
        for one in ready:
            self._apply(one)
        self._close()
        self._unblock()
        self._sweep()
        puts = self._puts()
        self._mark()
        return Result(
            standing,
            held,
            puts | {STANDING: _restartable(standing, held)},
            self._deletes,
            self._records,
            self._letters,
            {name: self._facts(name) for name in inputs},
        )

    # Deciding ---

    def _ready(self) -> tuple[list[Held], list[Held]]:
        """What can be applied now, in order, and what has to wait."""
        waiting = sorted([*self._held, *self._intake.held])
        applied = self._standing.applied
        ready = bisect_left(waiting, applied, key=lambda one: one.order[0])
        return waiting[:ready], waiting[ready:]

    def _load(self, keys: Sequence[bytes]) -> None:
        missing = [key for key in dict.fromkeys(keys) if key not in self._requests]
        for key, data in zip(missing, self._store.get_many(missing), strict=True):
            self._requests[key] = Request() if data is None else self._unpack(data)

    def _unpack(self, data: bytes) -> Request:
        try:
            return unpack(data)
        except (ValueError, EOFError, TypeError) as error:
            self._store.throw_away(f"a request cannot be read: {error}")
            raise StateLost("a request in the store could not be read") from error

    def _arrive(self) -> None:
        rules = self._lane.rules
        new = [
            (key, prediction)
            for key, prediction in self._intake.arrived
            if match.add_prediction(self._requests[key], prediction, rules)
        ]
        # Only when all are there: a shadow may have come before the champion of the same batch.
        for key, prediction in new:
            request = self._requests[key]
            self._looks.append((prediction.time + rules[prediction.contract].horizon, key))
            if request.truths or prediction.champion is None:
                self._settle(key, request, prediction, request.truths)

    def _apply(self, one: Held) -> None:
        key = one.request
        request = self._requests[key]
        truth = Truth(one.order[0], one.order[1], one.said, UNMATCHED, one.original)
        match.add_truth(request, truth, self._lane.rules)
        if truth.fate != MATCHED:
            self._looks.append((truth.effective + self._lane.horizon, key))
        for prediction in request.predictions:
            self._settle(key, request, prediction, (truth,))

    def _settle(self, key: bytes, request: Request, prediction: Prediction, truths: Sequence[Truth]) -> None:
        """Writes what further truths make of a prediction; of a shadow's, once it is known who answered."""
        rules = self._lane.rules[prediction.contract]
        if prediction.champion is None:
            if not match.is_open(request, prediction, self._standing.applied, rules):
                return
            if not self._find_champion(request, prediction):
                until = prediction.time + rules.horizon
                self._standing.blocked[key, prediction.id] = (prediction.known, *prediction.source, until)
                return
            self._standing.blocked.pop((key, prediction.id), None)
            self._resolved.append(key)
            truths = request.truths
        for revision in match.fold(prediction, truths, rules):
            self._write(revision)

    def _find_champion(self, request: Request, shadow: Prediction) -> bool:
        """Whether it is known by now who answered the request that was scored in shadow."""
        standing, rules = self._standing, self._lane.rules
        champion = match.find_champion(request, shadow, rules)
        if champion is not None:
            plan = self._lane.plan(champion.contract)
            shadow.champion = answered(self._lane.codec, plan, champion)
            return True
        partition, offset = shadow.source
        if (
            standing.sources.get(partition, -1) >= offset
            or standing.clocks[PREDICTIONS] >= shadow.time + rules[shadow.contract].horizon
        ):
            shadow.champion = NOBODY
            return True
        return False

    def _close(self) -> None:
        """Ends the waiting for labels whose horizon is over."""
        standing = self._standing
        if standing.applied == NEVER:
            return
        # Whatever was due before was closed then, or came in this batch.
        due = [key for _, key in self._store.looks(standing.closed, standing.applied + 1)]
        standing.closed = standing.applied + 1
        self._load(due)
        rules = self._lane.rules
        over = [
            key
            for key, one in self._intake.arrived
            if one.time + rules[one.contract].horizon <= standing.applied
        ]
        for key in dict.fromkeys([*due, *over, *self._resolved]):
            request = self._requests[key]
            for prediction in request.predictions:
                self._close_one(key, request, prediction)

    def _close_one(self, key: bytes, request: Request, prediction: Prediction) -> None:
        plan = self._lane.plan(prediction.contract)
        if prediction.closed or self._standing.applied < prediction.time + plan.rules.horizon:
            return
        if prediction.champion is None:
            self._settle(key, request, prediction, ())
            if prediction.champion is None:
                return
        action = policy_action(self._lane.codec, plan, prediction) if plan.rules.known_only_for else ""
        revision = match.close(prediction, plan.rules, action)
        if revision is not None:
            self._write(revision)

    def _unblock(self) -> None:
        standing = self._standing
        free = [
            key
            for key, (_, partition, offset, until) in standing.blocked.items()
            if standing.sources.get(partition, -1) >= offset or standing.clocks[PREDICTIONS] >= until
        ]
        self._load([key for key, _ in free])
        for key, prediction_id in free:
            request = self._requests[key]
            for prediction in request.predictions:
                if prediction.id == prediction_id:
                    self._settle(key, request, prediction, ())
                    self._close_one(key, request, prediction)

    def _sweep(self) -> None:
        """Forgets what nothing can match any more; truths that never matched become dead letters."""
        standing, lane = self._standing, self._lane
        floor = standing.floor()
        now = floor - lane.lateness
        if floor == NEVER or now < standing.swept:
            return
        looks = self._store.looks(standing.swept, now + 1)
        standing.swept = now + 1
        self._deletes += [look for look, _ in looks]
        keys = [key for _, key in looks] + [key for time, key in self._looks if time <= now]
        self._looks = [(time, key) for time, key in self._looks if time > now]
        self._load(keys)
        for key in dict.fromkeys(keys):
            request = self._requests[key]
            for prediction in request.predictions:
                if prediction.champion is None:
                    self._find_champion(request, prediction)
            for truth in match.prune(request, now, lane.horizon, lane.rules):
                self._drop(truth)
            # Predictions, and truths that came before one, have a look of their own ahead of them.
            if request.truths:
                self._looks.append((match.due(request, lane.horizon, lane.rules), key))

    def _drop(self, truth: Truth) -> None:
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

    def _puts(self) -> dict[bytes, bytes]:
        puts = {}
        for key, request in self._requests.items():
            if request.predictions or request.truths:
                puts[key] = pack(request)
            else:
                self._deletes.append(key)
        # What is to be looked at has to lie ahead of where looking has come to.
        swept = self._standing.swept
        for time, key in self._looks:
            if key in puts:
                puts[look_key(max(time, swept), key)] = b""
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
            time = min(standing.applied, standing.clocks[name])
            if name == SHADOWS:
                time = min([time, *waiting])
            if time >= standing.marked[name] + MARK_EVERY_MS:
                standing.marked[name] = time
                self._records.append(mark(self._topics.outcomes, self._number, time, stream=name))

    def _facts(self, name: str) -> str:
        standing, lane = self._standing, self._lane
        floor = standing.floor()
        before = NEVER if floor == NEVER else floor - 2 * lane.horizon - lane.lateness
        clock, start = standing.restart(name, before)
        sources = standing.sources if name == PREDICTIONS else {}
        return Facts(start, clock, standing.applied, sources).to_metadata()


def _restartable(standing: Standing, held: Sequence[Held]) -> bytes:
    """The standing for the store. What is held is not stored: inputs are read again from the first that is."""
    found = standing.copy()
    for one in sorted(held, key=lambda one: -one.offset):
        found.offsets[one.input] = one.offset
        found.clocks[one.input] = one.before
    return found.pack()


def _message(truth: Truth) -> Message:
    """The message that a label or action came in, from what is kept of it."""
    topic, partition, offset = truth.said.source.rsplit("/", 2)
    assert truth.original is not None
    key, value, headers, appended = truth.original
    return PlainMessage(topic, int(partition), int(offset), value, key, headers or (), appended)
