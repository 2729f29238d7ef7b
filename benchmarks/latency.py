"""From a request to its answer, at a steady rate: no service at all, the empty transactional loop, the batch loop.

The loops run in processes of their own; the time is taken by the one that sends and reads. "No service" is a read of
what was just written.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import confluent_kafka

from benchmarks.empty_loop import PARTITIONS, VALUE_BYTES, PassOn
from benchmarks.harness import Broker, arguments, broker, say
from tailrace.kit.batch_loop import BatchLoop
from tailrace.kit.clock import SystemClock
from tailrace.kit.kafka_log import KafkaBackend
from tailrace.kit.reading import TopicReader

POLL_S = 0.005
"""How long the empty loop waits for a record."""


def run_empty_loop(bootstrap: str, source: str, target: str) -> None:
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": target,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": target,
            "partitioner": "murmur2_random",
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 20,
        }
    )
    producer.init_transactions(10)
    consumer.subscribe([source])
    while True:
        messages = consumer.consume(5_000, POLL_S)
        if not messages:
            continue
        group = consumer.consumer_group_metadata()
        producer.begin_transaction()
        ends = {}
        for message in messages:
            producer.produce(target, message.value(), message.key())
            ends[message.topic(), message.partition()] = message.offset()
        offsets = [confluent_kafka.TopicPartition(*tp, end + 1) for tp, end in ends.items()]
        producer.send_offsets_to_transaction(offsets, group)
        producer.commit_transaction()


def run_batch_loop(bootstrap: str, source: str, target: str) -> None:
    BatchLoop(
        KafkaBackend(Broker(bootstrap).connection, target),
        PassOn(source, target),
        service="benchmark",
        group=target,
        transactional_id=target,
        clock=SystemClock(),
        quarantine=lambda message, reason: sys.exit(reason),
        stop=threading.Event(),
    ).run()


def latencies(kafka: Broker, source: str, target: str, rate: int, seconds: float) -> list[float]:
    """Milliseconds for each request sent over ``seconds``; the first second warms up and does not count."""
    reader = TopicReader(kafka.connection, target, from_end=True)
    producer = confluent_kafka.Producer({**kafka.connection.kafka, "linger.ms": 0})
    run = struct.pack("<d", time.perf_counter())  # tells this run's requests from earlier ones
    padding = bytes(VALUE_BYTES - 16)
    total = int(rate * seconds)
    took: list[float] = []

    def read() -> None:
        answered = 0
        while answered < total:
            for message in reader.poll(0.1):
                now = time.perf_counter()
                value = message.value() or b""
                if value[:8] == run:
                    answered += 1
                    took.append((now - struct.unpack("<d", value[8:16])[0]) * 1e3)

    reading = threading.Thread(target=read)
    reading.start()
    began = time.perf_counter()
    for number in range(total):
        due = began + number / rate
        while (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
        stamp = struct.pack("<d", time.perf_counter())
        producer.produce(source, run + stamp + padding, b"%d" % number)
        producer.poll(0)
    producer.flush()
    reading.join()
    reader.close()
    return took[rate:]


def measure(kafka: Broker, loop: Callable[..., None] | None, rate: int, seconds: float) -> list[float]:
    source = kafka.topic("latency-in", PARTITIONS)
    if loop is None:
        try:
            return latencies(kafka, source, source, rate, seconds)
        finally:
            kafka.delete(source)
    target = kafka.topic("latency-out", PARTITIONS)
    spawn: Any = multiprocessing.get_context("spawn")
    process = spawn.Process(target=loop, args=(kafka.connection.bootstrap, source, target), daemon=True)
    process.start()
    try:
        latencies(kafka, source, target, 100, 1)  # until it has joined and answers
        return latencies(kafka, source, target, rate, seconds)
    finally:
        process.terminate()
        process.join()
        kafka.delete(source, target)


def main() -> None:
    parser = arguments("From request to answer at a steady rate.")
    parser.add_argument("--rate", type=int, default=1_000, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round")
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    with broker() as kafka:
        cases = {
            "no service": partial(measure, kafka, None),
            "empty loop": partial(measure, kafka, run_empty_loop),
            "batch loop": partial(measure, kafka, run_batch_loop),
        }
        for number in range(given.rounds + 1):
            for name, case in cases.items():
                took = sorted(case(given.rate, given.seconds))
                facts = {f"p{at * 100:g}": took[int(len(took) * at)] for at in (0.5, 0.99, 0.999)}
                say(
                    f"round {number} of {given.rounds}: {name} "
                    + " ".join(f"{k} {v:.1f}" for k, v in facts.items())
                )
                if number:  # the first warms the broker up
                    found.setdefault(name, []).append(facts)
    result = {
        name: {at: round(statistics.median(one[at] for one in rounds), 2) for at in rounds[0]}
        for name, rounds in found.items()
    }
    if given.json:
        print(json.dumps(result))
    else:
        for name, facts in result.items():
            print(f"{name:12} " + "  ".join(f"{at} {value:.1f} ms" for at, value in facts.items()))


if __name__ == "__main__":
    main()
