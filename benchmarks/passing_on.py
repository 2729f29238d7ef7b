"""Loops that pass bytes on, exactly once, as processes: the least that any service on Kafka does.

    python -m benchmarks.passing_on empty|batch BOOTSTRAP SOURCE TARGET GROUP

``empty`` is raw confluent-kafka and nothing else; ``batch`` is the exactly-once runner.
"""

from __future__ import annotations

import sys

import confluent_kafka

from benchmarks.empty_loop import PassOn, pass_on_batch
from benchmarks.harness import Broker
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.time_source import SystemClock

BATCH = 5_000
POLL_S = 0.005
"""How long the empty loop waits for a batch to fill."""


def empty(bootstrap: str, source: str, target: str, group: str) -> None:
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": group,
            "partitioner": "murmur2_random",
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 20,
        }
    )
    producer.init_transactions(10)
    consumer.subscribe([source])
    while True:
        messages = consumer.consume(BATCH, POLL_S)
        if not messages:
            continue
        pass_on_batch(consumer, producer, target, messages)


def batch(bootstrap: str, source: str, target: str, group: str) -> None:
    ExactlyOnceRunner(
        KafkaBackend(Broker(bootstrap).connection, group),
        PassOn(source, target),
        service="benchmark",
        group=group,
        transactional_id=group,
        clock=SystemClock(),
        quarantine=lambda message, reason: sys.exit(reason),
    ).run()


LOOPS = {"empty": empty, "batch": batch}


def main(loop: str, *arguments: str) -> None:
    LOOPS[loop](*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
