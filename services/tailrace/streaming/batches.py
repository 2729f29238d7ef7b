"""Batches: how many records one may have, how it is fetched, and what has been processed of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tailrace.streaming.backends.abstract import Committed, Consumer
from tailrace.streaming.bounds import Bounds, size_of
from tailrace.streaming.processor import Output
from tailrace.streaming.records import Message, Record, TopicPartition
from tailrace.telemetry import metrics

log = logging.getLogger(__name__)

MAX_BATCH = 5_000
FIRST_BATCH = 100
"""Records in a process's first batch, at most: what a record costs is not known before."""
IDLE_WAIT_S = 0.01
FILL_WAIT_S = 0.05
"""How long a batch is waited for when the log is known to hold a full one."""


class BatchLimit:
    """How many records the next batch may have, as learned from what the last ones came to (docs/adr/0198).

    Attributes:
        limit: that number.
    """

    def __init__(self, bounds: Bounds, max_batch: int) -> None:
        self._bounds = bounds
        self._max_batch = max_batch
        self.limit = min(max_batch, FIRST_BATCH)

    def learn(self, messages: int, records: int, size: int, took_s: float) -> str | None:
        """Takes what a batch came to. Where that is too much for one transaction: why it is to be taken in halves."""
        if not self._bounds.hold(records, size):
            if messages > 1:
                self.limit = messages // 2
                return f"{messages} messages come to {records} records of {size} bytes: too many"
            log.warning("a large step", extra={"records": records, "bytes": size})
        if took_s > self._bounds.seconds and messages > 1:
            self.limit = max(1, int(messages * self._bounds.seconds / took_s / 2))
        elif messages >= self.limit and self._bounds.half().hold(records, size, took_s):
            self.limit = min(self._max_batch, 2 * self.limit)
        return None


def fetch(consumer: Consumer, limit: int, *, is_full: bool, linger_s: float) -> Sequence[Message]:
    """A batch. It waits where the log is known to hold a full one, or for the first message; then ``linger_s``."""
    messages = consumer.consume(limit, FILL_WAIT_S if is_full else 0)
    if messages:
        may_top_up = linger_s > 0 and len(messages) < limit
    else:
        messages = consumer.consume(1, IDLE_WAIT_S)
        may_top_up = limit > 1
    if messages and may_top_up:
        messages = [*messages, *consumer.consume(limit - len(messages), linger_s)]
    return messages


def last_of(messages: Sequence[Message]) -> dict[TopicPartition, Message]:
    """The last message of each partition."""
    last = {(message.topic(), message.partition()): message for message in messages}
    return {TopicPartition(*tp): message for tp, message in last.items()}


@dataclass(slots=True)
class ProcessedBatch:
    """A batch that has been processed.

    Attributes:
        last: the last message of each partition.
        in_flight: what a process may die with that works it off.
        offsets: what is committed with it.
        letters: the dead letters of the output, as records.
    """

    messages: Sequence[Message]
    last: Mapping[TopicPartition, Message]
    in_flight: Sequence[str]
    output: Output
    offsets: Mapping[TopicPartition, Committed]
    letters: Sequence[Record]

    def written(self) -> tuple[int, int]:
        """Records and bytes that it writes."""
        records, letters = self.output.records, self.letters
        return len(records) + len(letters), size_of(records) + size_of(letters)

    def count(self) -> None:
        """Counts in the metrics what was committed with it."""
        output = self.output
        metrics.BATCHES.inc()
        metrics.OUTPUTS.inc(len(output.records))
        for letter in output.dead_letters:
            metrics.DEAD_LETTERS.labels(letter.topic, letter.code).inc()
        done = self.messages
        if output.paused:
            ends = {tp: end.offset for tp, end in self.offsets.items()}
            done = [m for m in done if m.offset() < ends.get(TopicPartition(m.topic(), m.partition()), 0)]
        topics = {tp.topic for tp in self.last}
        counts = Counter(m.topic() for m in done) if len(topics) > 1 else dict.fromkeys(topics, len(done))
        for topic, count in counts.items():
            metrics.RECORDS.labels(topic).inc(count)
        for tp, message in self.last.items():
            if tp not in output.paused:
                metrics.WATERMARK.labels(*map(str, tp)).set(message.timestamp()[1] / 1000)
