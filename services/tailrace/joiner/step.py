"""One step of a partition: from where it stands, and a batch, to where it stands then.

A step takes in everything of its batch before anything is decided, and then decides everything that can be. So what
has been written by the end of a step depends on what has been read by then, and on nothing else; and the same
history, read again in other steps, leads to the same standing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tailrace.joiner import match, outcome
from tailrace.joiner.answered import answered, policy_action
from tailrace.joiner.forward import HEADER as FORWARDED
from tailrace.joiner.forward import Forwarded
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.match import (
    ACTION,
    AFTER_HORIZON,
    CHAMPION,
    LABEL,
    MATCHED,
    NOBODY,
    SHADOW,
    UNMATCHED,
    Prediction,
    Request,
    Revision,
    Said,
    Truth,
)
from tailrace.joiner.packing import pack, unpack
from tailrace.joiner.read_predictions import read_predictions
from tailrace.joiner.read_truths import Place
from tailrace.joiner.standing import (
    ACTIONS,
    CHECKPOINTS,
    LABELS,
    NEVER,
    PREDICTIONS,
    REKEYED,
    SHADOWS,
    Facts,
    Standing,
)
from tailrace.joiner.store import STANDING, Store, look_key
from tailrace.kit.errors import BadRecord
from tailrace.kit.marks import mark, mark_offset, mark_stream, mark_time
from tailrace.kit.messages import DeadLetter, Message, Record
from tailrace.kit.murmur2_columns import partitions_of

MARK_EVERY_MS = 1_000
"""Marks are written when a clock has moved on by so much: event time, not wall time."""

_STREAMS = {PREDICTIONS: CHAMPION, SHADOWS: SHADOW}
_KINDS = {LABELS: LABEL, ACTIONS: ACTION}


class Held(NamedTuple):
    """A label or action that waits until all of its time and before are known.

    Attributes:
        order: effective time, kind, partition, offset; topics of a lane are in the order of their kinds.
        request: key in the store.
        original: of the message: key, value, headers, when it was appended.
        input: where it was read, ``offset`` at which, ``before`` which clock before it.
    """

    order: tuple[int, int, int, int]
    request: bytes
    said: Said
    original: tuple[bytes | None, bytes | None, Any, int]
    input: str
    offset: int
    before: int


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


class Original:
    """A message that was kept until its dead letter had to be written."""

    def __init__(self, truth: Truth) -> None:
        topic, partition, offset = truth.said.source.rsplit("/", 2)
        self._topic, self._partition, self._offset = topic, int(partition), int(offset)
        assert truth.original is not None
        self._key, self._value, self._headers, self._appended = truth.original

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> Any:
        return self._key

    def value(self) -> Any:
        return self._value

    def headers(self) -> Any:
        return self._headers

    def timestamp(self) -> Any:
        return 2, self._appended


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
        self._skip_before = skip_before
        self._applied = applied
        self._grain = max(1, lane.horizon // CHECKPOINTS)

        self._requests: dict[bytes, Request] = {}
        self._new_held: list[Held] = []
        self._arrived: list[tuple[bytes, Prediction]] = []
        self._resolved: list[bytes] = []
        self._looks: list[tuple[int, bytes]] = []
        self._deletes: list[bytes] = []
        self._records: list[Record] = []
        self._letters: list[DeadLetter] = []

    def run(self, inputs: Mapping[str, Sequence[Message]]) -> Result:
        """Takes the messages of each input, each in order.

        Raises:
            Retry: the registry is away, or a contract has not been heard of yet.
        """
        for name, messages in inputs.items():
            self._take(name, messages)
        standing = self._standing
        standing.applied = max(standing.applied, self._applied, standing.watermark(self._partitions))
        ready, held = self._ready()
        self._load([request for request, _ in self._arrived] + [one.request for one in ready])
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

    # Taking in ---

    def _take(self, name: str, messages: Sequence[Message]) -> None:
        standing = self._standing
        standing.checkpoint(name, standing.clocks[name], messages[0].offset(), self._grain)
        standing.offsets[name] = messages[-1].offset() + 1
        if name in _STREAMS:
            self._take_predictions(name, messages)
        elif name == REKEYED:
            self._take_forwarded(messages)
        else:
            self._take_truths(name, messages)

    def _take_predictions(self, name: str, messages: Sequence[Message]) -> None:
        answers = iter(
            read_predictions(
                self._lane, _STREAMS[name], [v for m in messages if (v := m.value()) is not None]
            )
        )
        standing, stream = self._standing, _STREAMS[name]
        clock, sources, arrived = standing.clocks[name], standing.sources, self._arrived
        for message in messages:
            if message.value() is None:
                clock = max(clock, self._marked(message))
                if stream == CHAMPION and (read := mark_offset(message)) is not None:
                    sources[self._number] = max(sources.get(self._number, -1), read)
                continue
            answer = next(answers)
            if isinstance(answer, BadRecord):
                self._reject(message, answer)
                continue
            prediction = answer[1]
            if prediction.time > clock:
                clock = prediction.time
            else:
                prediction.known = clock
            if stream == CHAMPION:
                partition, offset = prediction.source
                if offset > sources.get(partition, -1):
                    sources[partition] = offset
            arrived.append(answer)
        standing.clocks[name] = clock

    def _take_truths(self, name: str, messages: Sequence[Message]) -> None:
        topic, number, kind = f"{self._topics.name}.{name}", self._number, _KINDS[name]
        some = [message for message in messages if message.value() is not None]
        offsets = [message.offset() for message in some]
        times = [message.timestamp()[1] for message in some]
        where = Place(topic, number, offsets, times)
        told = self._lane.reader.read(kind, [message.value() or b"" for message in some], where)
        keys = [b"" if isinstance(one, BadRecord) else one.key for one in told]
        rows = zip(told, partitions_of(keys, self._partitions), offsets, times, strict=True)
        clock = self._standing.clocks[name]
        for message in messages:
            value = message.value()
            if value is None:
                clock = max(clock, self._marked(message))
                continue
            one, belongs, offset, appended = next(rows)
            if isinstance(one, BadRecord):
                self._reject(message, one)
                continue
            plan, request, key, time, said = one
            before = clock
            if time > clock:
                clock = time
            elif before - time > plan.rules.lateness:
                said = said._replace(late=True)
            if belongs != number:
                about = Forwarded(topic, number, offset, appended, clock, said.late, message.key())
                headers = [about.header(), *(message.headers() or ())]
                self._records.append(Record(self._topics.rekeyed, value, key, headers, belongs))
            elif clock >= self._skip_before:
                original = message.key(), value, message.headers(), appended
                order = clock, kind, number, offset
                self._new_held.append(Held(order, request, said, original, name, offset, before))
        self._standing.clocks[name] = clock

    def _take_forwarded(self, messages: Sequence[Message]) -> None:
        standing = self._standing
        for message in messages:
            value = message.value()
            try:
                if value is None:
                    time, stream = self._mark_of(message), mark_stream(message) or ""
                    known, _ = standing.others.get(stream, (NEVER, 0))
                    standing.others[stream] = max(known, time), message.offset()
                else:
                    self._take_one_forwarded(message, value)
            except BadRecord as bad:
                self._reject(message, bad)

    def _take_one_forwarded(self, message: Message, value: bytes) -> None:
        about = Forwarded.of(message)
        kind = LABEL if about.topic == self._topics.labels else ACTION
        (one,) = self._lane.reader.read(
            kind, [value], Place(about.topic, about.partition, [about.offset], [about.appended])
        )
        if isinstance(one, BadRecord):
            raise one
        clocks = self._standing.clocks
        before, clocks[REKEYED] = clocks[REKEYED], max(clocks[REKEYED], about.effective)
        if about.effective >= self._skip_before:
            headers = [(name, content) for name, content in message.headers() or () if name != FORWARDED]
            original = about.key, value, headers or None, about.appended
            order = about.effective, kind, about.partition, about.offset
            said = one.said._replace(late=about.late)
            self._new_held.append(Held(order, one.request, said, original, REKEYED, message.offset(), before))

    def _marked(self, message: Message) -> int:
        """The time of a mark; before all times where it is none, which makes it a dead letter."""
        try:
            return self._mark_of(message)
        except BadRecord as bad:
            self._reject(message, bad)
            return NEVER

    def _mark_of(self, message: Message) -> int:
        time = mark_time(message)
        if time is None:
            raise BadRecord("empty", "the message has neither a value nor a mark")
        return time

    def _reject(self, message: Message, bad: BadRecord) -> None:
        self._letters.append(DeadLetter(self._topics.dead_letters, message, bad.code, bad.reason, bad.field))

    # Deciding ---

    def _ready(self) -> tuple[list[Held], list[Held]]:
        """What can be applied now, in order, and what has to wait."""
        waiting = sorted([*self._held, *self._new_held])
        applied = self._standing.applied
        ready = bisect_left(waiting, applied, key=lambda one: one.order[0])
        return waiting[:ready], waiting[ready:]

    def _load(self, keys: Sequence[bytes]) -> None:
        missing = [key for key in dict.fromkeys(keys) if key not in self._requests]
        for key, data in zip(missing, self._store.get_many(missing), strict=True):
            self._requests[key] = Request() if data is None else unpack(data)

    def _arrive(self) -> None:
        rules = self._lane.rules
        new = [
            (key, prediction)
            for key, prediction in self._arrived
            if match.add_prediction(self._requests[key], prediction, rules)
        ]
        # Only when all are there: a shadow may have come before the champion of the same batch.
        for key, prediction in new:
            request = self._requests[key]
            self._looks.append((prediction.time + rules[prediction.contract].horizon, key))
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
        for key in dict.fromkeys([*due, *(key for key, _ in self._arrived), *self._resolved]):
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
        self._reject(Original(truth), bad)

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
