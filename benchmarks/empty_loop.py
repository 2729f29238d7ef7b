"""The limit of a Python service on Kafka, and how near the exactly-once runner comes to it.

The empty loop is raw confluent-kafka: consume, produce the same bytes, send offsets, commit; no checks, no errors
handled. The runner (``batch loop``) runs a processor that passes the bytes on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import confluent_kafka

from benchmarks.harness import Broker, Measured, Stopwatch, arguments, broker, interleave, show, summary
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.processor import Clock, Output, Processor
from tailrace.streaming.records import Message, Record, TopicPartition
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.time_source import SystemClock

PARTITIONS = 6
VALUE_BYTES = 300


def empty_loop(
    kafka: Broker,
    source: str,
    target: str,
    records: int,
    batch: int,
    value: bytes | None = None,
    linger_ms: float = 5,
) -> Measured:
    """Passes ``records`` records on in transactions of ``batch``, from the first consumed to the last commit. Where a
    ``value`` is given, it is written in place of each record's own. ``linger_ms`` is 5 in librdkafka by default, and 1
    in the runner.
    """
    consumer = confluent_kafka.Consumer(
        {
            **kafka.connection.kafka,
            "group.id": target,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "fetch.queue.backoff.ms": 5,
        }
    )
    producer = confluent_kafka.Producer(
        {
            **kafka.connection.kafka,
            "transactional.id": target,
            "partitioner": "murmur2_random",
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 20,
            "linger.ms": linger_ms,
        }
    )
    producer.init_transactions(10)
    consumer.subscribe([source])
    watch = None
    done = 0
    while done < records:
        messages = consumer.consume(batch, 0.05)
        if not messages:
            continue
        watch = watch or Stopwatch()
        pass_on_batch(consumer, producer, target, messages, value)
        done += len(messages)
    assert watch is not None
    measured = watch.stop(done)
    consumer.close()
    return measured


def exactly_once(kafka: Broker, processor: Processor, group: str, records: int, batch: int) -> Measured:
    """Runs ``processor`` on the exactly-once runner until it has committed ``records`` records of its topics.

    Time is taken from when the first batch is handed to the processor.
    """
    counter = _Counting(processor)
    loop = ExactlyOnceRunner(
        KafkaBackend(kafka.connection, group),
        counter,
        service="benchmark",
        group=group,
        transactional_id=group,
        clock=SystemClock(),
        quarantine=_no_quarantine,
        stop=threading.Event(),
        max_batch=batch,
    )
    while counter.watch is None or counter.done < records:
        loop.step()
    measured = counter.watch.stop(counter.done)
    loop.close()
    return measured


class _Counting:
    """Counts what is committed of what a processor is given."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self.done = 0
        self.watch: Stopwatch | None = None
        self.control_topics = processor.control_topics
        self.topics = processor.topics
        self.control = processor.control
        self.assigned = processor.assigned
        self.restore = processor.restore
        self.revoked = processor.revoked
        self.waiting = processor.waiting

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        self.watch = self.watch or Stopwatch()
        output = self._processor.process(batch, clock)
        apply = output.on_committed

        def count() -> None:
            apply()
            if not output.paused:
                self.done += len(batch)

        output.on_committed = count
        return output


class PassOn:
    """The processor that does nothing: from one topic to another."""

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target

    def control_topics(self) -> Sequence[str]:
        return ()

    def topics(self) -> frozenset[str]:
        return frozenset({self.source})

    def control(self, messages: Sequence[Message]) -> None:
        """There is nothing to control."""

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> None:
        """No state."""

    def restore(self, messages: Sequence[Message]) -> None:
        """No state."""

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """No state."""

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        target = self.target
        return Output([Record(target, message.value(), message.key()) for message in batch])

    def waiting(self) -> str | None:
        return None


def _no_quarantine(message: Message, reason: str) -> Output:
    raise AssertionError(reason)


def main() -> None:
    parser = arguments("The empty transactional loop and the exactly-once runner, side by side.")
    parser.add_argument("--records", type=int, default=200_000, help="records in each run")
    parser.add_argument(
        "--batch", type=int, nargs="*", default=[1_000, 5_000, 20_000], help="records a commit"
    )
    given = parser.parse_args()
    result = {}
    with broker() as kafka:
        source = kafka.topic("source", PARTITIONS)
        rng = random.Random(1)
        kafka.fill(source, (rng.randbytes(VALUE_BYTES) for _ in range(given.records)))

        def empty(batch: int) -> Measured:
            target = kafka.topic("empty", PARTITIONS)
            try:
                return empty_loop(kafka, source, target, given.records, batch)
            finally:
                kafka.delete(target)

        def passing(batch: int) -> Measured:
            target = kafka.topic("loop", PARTITIONS)
            try:
                return exactly_once(kafka, PassOn(source, target), target, given.records, batch)
            finally:
                kafka.delete(target)

        for batch in given.batch:
            runs = interleave(
                {"empty loop": partial(empty, batch), "batch loop": partial(passing, batch)}, given.rounds
            )
            result[f"batch {batch}"] = summary(runs, "empty loop")
    show(result, given.json)


if __name__ == "__main__":
    main()


def pass_on_batch(
    consumer: confluent_kafka.Consumer,
    producer: confluent_kafka.Producer,
    target: str,
    messages: Sequence[confluent_kafka.Message],
    value: bytes | None = None,
) -> None:
    """One transaction: the messages' bytes, or for each of them the given ones, and how far they were read."""
    group = consumer.consumer_group_metadata()
    producer.begin_transaction()
    ends: dict[tuple[Any, Any], Any] = {}  # none of them is None in a message without an error
    for message in messages:
        producer.produce(target, value or message.value(), message.key())
        ends[message.topic(), message.partition()] = message.offset()
    offsets = [confluent_kafka.TopicPartition(*tp, end + 1) for tp, end in ends.items()]
    producer.send_offsets_to_transaction(offsets, group)
    producer.commit_transaction()
