"""Takes a batch in: reads it, moves stream time on, repartitions what belongs elsewhere. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tailrace.contracts.records.input_size import check_around, is_large, too_large
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
from tailrace.joiner.repartition import HEADER as ORIGIN_HEADER
from tailrace.joiner.repartition import Origin
from tailrace.streaming.partitioner_columns import partitions_of
from tailrace.streaming.records import DeadLetter, Message, Record
from tailrace.streaming.watermark_records import (
    EARLIEST_MS,
    watermark_offset,
    watermark_stream,
    watermark_time,
)

_STREAMS = {PREDICTIONS: CHAMPION, SHADOWS: SHADOW}
_KINDS = {LABELS: LABEL, ACTIONS: ACTION}


class PendingFeedback(NamedTuple):
    """A label or action that waits until all of its time and before are known.

    Attributes:
        request: key in the store.
        original: of the message.
        input: where it was read, ``offset`` at which, ``before`` the input's stream time before it.
    """

    order: Order
    request: bytes
    content: FeedbackValue
    original: Original
    input: str
    offset: int
    before: int


class Intake:
    """What a batch brings to the partition ``number`` of so many.

    Args:
        state: is moved on.
        skip_before: feedback of history from before this has been applied.

    Attributes:
        arrived: predictions, those of each stream in their order.
        records: what is sent on to other partitions.
    """

    def __init__(
        self, lane: LaneContracts, number: int, partitions: int, state: PartitionState, skip_before: Order
    ) -> None:
        self._lane, self._topics = lane, lane.lane
        self._number, self._partitions = number, partitions
        self._state = state
        self._skip_before = skip_before
        self._grain = max(1, lane.horizon // CHECKPOINTS)
        self._others = {
            f"{name}/{other}" for name in _KINDS for other in range(partitions) if other != number
        }
        self.arrived: list[Answer] = []
        self.pending: list[PendingFeedback] = []
        self.records: list[Record] = []
        self.letters: list[DeadLetter] = []

    def take(self, name: str, messages: Sequence[Message]) -> None:
        """Takes some messages of one input, in order.

        Raises:
            Unavailable: the registry is away, or a contract has not been heard of yet.
        """
        state = self._state
        state.checkpoint(name, messages[0].offset(), self._grain)
        state.offsets[name] = messages[-1].offset() + 1
        if name in _STREAMS:
            self._take_predictions(name, messages)
        elif name == REKEYED:
            self._take_repartitioned(messages)
        else:
            self._take_feedback(name, messages)

    def _take_predictions(self, name: str, messages: Sequence[Message]) -> None:
        state, stream = self._state, _STREAMS[name]
        values = [value for message in messages if (value := message.value()) is not None]
        answers = iter(read_predictions(self._lane, stream, values))
        stream_time, sources = state.stream_times[name], state.sources
        for message in messages:
            if message.value() is None:
                stream_time = max(stream_time, self._watermark_or_never(message))
                if stream == CHAMPION and (offset := watermark_offset(message)) is not None:
                    sources[self._number] = max(sources.get(self._number, -1), offset)
                continue
            answer = next(answers)
            if isinstance(answer, BadRecord):
                self._reject(message, answer)
                continue
            prediction = answer[1]
            if (problem := self._problem(prediction, message)) is not None:
                self._reject(message, problem)
                continue
            if prediction.time > stream_time:
                stream_time = prediction.time
            else:
                prediction.known = stream_time
            if stream == CHAMPION:
                partition, offset = prediction.source
                sources[partition] = max(offset, sources.get(partition, -1))
            self.arrived.append(answer)
        state.stream_times[name] = stream_time

    def _problem(self, prediction: Prediction, message: Message) -> BadRecord | None:
        """What no scorer writes: a time or a source that would be remembered wrongly for all that follows."""
        time, (partition, offset) = prediction.time, prediction.source
        skew = self._lane.plans[prediction.contract].contract.event_time.skew_ms
        if not EARLIEST_MS <= time <= message.timestamp()[1] + skew:
            reason = f"{time} is before the year 1, or further ahead of the append time than the skew"
            return BadRecord("event-time-ahead", reason, "event_time")
        if not (0 <= partition < self._partitions and 0 <= offset < 2**62):
            return BadRecord("wrong-source", f"no request is at {partition}/{offset}", "source")
        return None

    def _take_feedback(self, name: str, messages: Sequence[Message]) -> None:
        topic, number, kind = f"{self._topics.name}.{name}", self._number, _KINDS[name]
        valued = [message for message in messages if message.value() is not None]
        offsets = [message.offset() for message in valued]
        times = [message.timestamp()[1] for message in valued]
        where = FeedbackPlaces(topic, number, offsets, times)
        values = [b"" if is_large(message) else message.value() or b"" for message in valued]
        received = [
            _problem_of_size(message) or feedback
            for message, feedback in zip(valued, self._lane.reader.read(kind, values, where), strict=True)
        ]
        keys = [b"" if isinstance(feedback, BadRecord) else feedback.key for feedback in received]
        rows = zip(received, partitions_of(keys, self._partitions), offsets, times, strict=True)
        stream_time = self._state.stream_times[name]
        for message in messages:
            value = message.value()
            if value is None:
                stream_time = max(stream_time, self._watermark_or_never(message))
                continue
            feedback, partition, offset, appended = next(rows)
            if isinstance(feedback, BadRecord):
                self._reject(message, feedback)
                continue
            plan, request, key, time, content = feedback
            before = stream_time
            if time > stream_time:
                stream_time = time
            elif before - time > plan.rules.lateness:
                content = content._replace(late=True)
            if partition != number:
                origin = Origin(topic, number, offset, appended, stream_time, content.late, message.key())
                headers = [origin.header(), *(message.headers() or ())]
                self.records.append(Record(self._topics.rekeyed, value, key, headers, partition))
            elif (order := (stream_time, kind, number, offset)) >= self._skip_before:
                original = message.key(), value, message.headers(), appended
                self.pending.append(PendingFeedback(order, request, content, original, name, offset, before))
        self._state.stream_times[name] = stream_time

    def _take_repartitioned(self, messages: Sequence[Message]) -> None:
        others = self._state.others
        for message in messages:
            value = message.value()
            try:
                if value is not None:
                    self._take_one_repartitioned(message, value)
                    continue
                time, stream = self._watermark(message), watermark_stream(message) or ""
                if stream not in self._others:
                    reason = f"no partition of another number is {stream[:100]!r}"
                    raise BadRecord("unknown-stream", reason)
                known, _ = others.get(stream, (NEVER, 0))
                others[stream] = max(known, time), message.offset()
            except BadRecord as bad:
                self._reject(message, bad)

    def _take_one_repartitioned(self, message: Message, value: bytes) -> None:
        topic, partition, offset, appended, effective, late, key = self._origin(message)
        kind = LABEL if topic == self._topics.labels else ACTION
        place = FeedbackPlaces(topic, partition, [offset], [appended])
        (feedback,) = self._lane.reader.read(kind, [value], place)
        if isinstance(feedback, BadRecord):
            raise feedback
        times = self._state.stream_times
        before, times[REKEYED] = times[REKEYED], max(times[REKEYED], effective)
        order = effective, kind, partition, offset
        if order >= self._skip_before:
            headers = [header for header in message.headers() or () if header[0] != ORIGIN_HEADER]
            original = key, value, headers or None, appended
            content = feedback.content._replace(late=late)
            self.pending.append(
                PendingFeedback(order, feedback.request, content, original, REKEYED, message.offset(), before)
            )

    def _origin(self, message: Message) -> Origin:
        origin = Origin.of(message)
        topic, partition = origin.topic, origin.partition
        if topic not in (self._topics.labels, self._topics.actions) or not 0 <= partition < self._partitions:
            raise BadRecord("corrupt", f"{topic[:100]}/{partition} is no partition of labels or actions")
        if origin.effective > message.timestamp()[1] + self._lane.ahead:
            raise BadRecord("event-time-ahead", f"it is to count from {origin.effective}")
        return origin

    def _watermark_or_never(self, message: Message) -> int:
        """The time of a watermark record; NEVER where it is none, which makes it a dead letter."""
        try:
            return self._watermark(message)
        except BadRecord as bad:
            self._reject(message, bad)
            return NEVER

    def _watermark(self, message: Message) -> int:
        time = watermark_time(message)
        if time is None:
            raise BadRecord("empty", "the message has neither a value nor a watermark")
        ahead = time - message.timestamp()[1]
        if ahead > self._lane.ahead:
            raise BadRecord("event-time-ahead", f"a watermark {ahead / 1000:,.0f} s after it was appended")
        return time

    def _reject(self, message: Message, bad: BadRecord) -> None:
        self.letters.append(DeadLetter(self._topics.dead_letters, message, bad.code, bad.reason, bad.field))


def _problem_of_size(message: Message) -> BadRecord | None:
    try:
        check_around(message)
    except BadRecord as bad:
        return bad
    return too_large(message) if is_large(message) else None
