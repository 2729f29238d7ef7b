"""Takes a batch in: reads it, moves the clocks on, sends on what belongs elsewhere. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tailrace.errors import BadRecord
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.match import ACTION, CHAMPION, LABEL, SHADOW, FeedbackValue, Original, Prediction
from tailrace.joiner.partition_state import (
    ACTIONS,
    CHECKPOINTS,
    LABELS,
    PREDICTIONS,
    REKEYED,
    SHADOWS,
    PartitionState,
)
from tailrace.joiner.progress import NEVER, Order
from tailrace.joiner.read_feedback import FeedbackPlaces
from tailrace.joiner.read_predictions import Answer, read_predictions
from tailrace.joiner.repartition import HEADER as FORWARDED
from tailrace.joiner.repartition import Forwarded
from tailrace.streaming.partitioner_columns import partitions_of
from tailrace.streaming.records import DeadLetter, Message, Record
from tailrace.streaming.watermark_records import EARLIEST_MS, mark_offset, mark_stream, mark_time

_STREAMS = {PREDICTIONS: CHAMPION, SHADOWS: SHADOW}
_KINDS = {LABELS: LABEL, ACTIONS: ACTION}


class PendingFeedback(NamedTuple):
    """A label or action that waits until all of its time and before are known.

    Attributes:
        request: key in the store.
        original: of the message.
        input: where it was read, ``offset`` at which, ``before`` which clock before it.
    """

    order: Order
    request: bytes
    said: FeedbackValue
    original: Original
    input: str
    offset: int
    before: int


class Intake:
    """What a batch brings.

    Args:
        number: of the partition.
        partitions: how many the lane has.
        standing: is moved on.
        skip_before: truths of history from before this have been applied.

    Attributes:
        arrived: predictions, those of each stream in their order.
        held: labels and actions.
        records: what is sent on to other partitions.
        letters: dead letters.
    """

    def __init__(
        self, lane: LaneContracts, number: int, partitions: int, standing: PartitionState, skip_before: Order
    ) -> None:
        self._lane = lane
        self._topics = lane.lane
        self._number = number
        self._partitions = partitions
        self._standing = standing
        self._skip_before = skip_before
        self._grain = max(1, lane.horizon // CHECKPOINTS)
        self._others = {
            f"{name}/{other}" for name in _KINDS for other in range(partitions) if other != number
        }
        self.arrived: list[Answer] = []
        self.held: list[PendingFeedback] = []
        self.records: list[Record] = []
        self.letters: list[DeadLetter] = []

    def take(self, name: str, messages: Sequence[Message]) -> None:
        """Takes some messages of one input, in order.

        Raises:
            Unavailable: the registry is away, or a contract has not been heard of yet.
        """
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
        clock, sources, arrived = standing.clocks[name], standing.sources, self.arrived
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
            if (wrong := self._wrong(prediction, message)) is not None:
                self._reject(message, wrong)
                continue
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

    def _wrong(self, prediction: Prediction, message: Message) -> BadRecord | None:
        """What no scorer writes: a time or a source that would be remembered wrongly for all that follows."""
        skew = self._lane.plans[prediction.contract].contract.event_time.skew_ms
        if not EARLIEST_MS <= prediction.time <= message.timestamp()[1] + skew:
            reason = (
                f"{prediction.time} is before the year 1, or further ahead of the append time than the skew"
            )
            return BadRecord("event-time-ahead", reason, "event_time")
        partition, offset = prediction.source
        if not (0 <= partition < self._partitions and 0 <= offset < 2**62):
            return BadRecord("wrong-source", f"no request is at {partition}/{offset}", "source")
        return None

    def _take_truths(self, name: str, messages: Sequence[Message]) -> None:
        topic, number, kind = f"{self._topics.name}.{name}", self._number, _KINDS[name]
        some = [message for message in messages if message.value() is not None]
        offsets = [message.offset() for message in some]
        times = [message.timestamp()[1] for message in some]
        where = FeedbackPlaces(topic, number, offsets, times)
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
                self.records.append(Record(self._topics.rekeyed, value, key, headers, belongs))
            elif (order := (clock, kind, number, offset)) >= self._skip_before:
                original = message.key(), value, message.headers(), appended
                self.held.append(PendingFeedback(order, request, said, original, name, offset, before))
        self._standing.clocks[name] = clock

    def _take_forwarded(self, messages: Sequence[Message]) -> None:
        standing = self._standing
        for message in messages:
            value = message.value()
            try:
                if value is None:
                    time, stream = self._mark_of(message), mark_stream(message) or ""
                    if stream not in self._others:
                        raise BadRecord(
                            "unknown-stream", f"no partition of another number is {stream[:100]!r}"
                        )
                    known, _ = standing.others.get(stream, (NEVER, 0))
                    standing.others[stream] = max(known, time), message.offset()
                else:
                    self._take_one_forwarded(message, value)
            except BadRecord as bad:
                self._reject(message, bad)

    def _take_one_forwarded(self, message: Message, value: bytes) -> None:
        about = self._forwarded(message)
        kind = LABEL if about.topic == self._topics.labels else ACTION
        (one,) = self._lane.reader.read(
            kind, [value], FeedbackPlaces(about.topic, about.partition, [about.offset], [about.appended])
        )
        if isinstance(one, BadRecord):
            raise one
        clocks = self._standing.clocks
        before, clocks[REKEYED] = clocks[REKEYED], max(clocks[REKEYED], about.effective)
        order = about.effective, kind, about.partition, about.offset
        if order >= self._skip_before:
            headers = [(name, content) for name, content in message.headers() or () if name != FORWARDED]
            original = about.key, value, headers or None, about.appended
            said = one.said._replace(late=about.late)
            self.held.append(
                PendingFeedback(order, one.request, said, original, REKEYED, message.offset(), before)
            )

    def _forwarded(self, message: Message) -> Forwarded:
        about = Forwarded.of(message)
        topics = (self._topics.labels, self._topics.actions)
        if about.topic not in topics or not 0 <= about.partition < self._partitions:
            raise BadRecord(
                "corrupt", f"{about.topic[:100]}/{about.partition} is no partition of labels or actions"
            )
        if about.effective > message.timestamp()[1] + self._lane.ahead:
            raise BadRecord("event-time-ahead", f"it is to count from {about.effective}")
        return about

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
        ahead = time - message.timestamp()[1]
        if ahead > self._lane.ahead:
            raise BadRecord("event-time-ahead", f"a mark {ahead / 1000:,.0f} s after it was appended")
        return time

    def _reject(self, message: Message, bad: BadRecord) -> None:
        self.letters.append(DeadLetter(self._topics.dead_letters, message, bad.code, bad.reason, bad.field))
