"""What benchmarks share: a warm broker, interleaved rounds, medians with their ranges, ratios within a round.

On a machine where the broker shares the cores, noise between minutes is larger than most differences worth knowing.
So the cases take turns, round by round, and a ratio is taken within a round, then its median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

from tailrace.connection import Connection
from tailrace.local.kafka import LocalKafka


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Measured:
    """One run of one case: ``cpu_seconds`` are this process's own, the broker's not among them."""

    records: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.records / self.seconds


class Stopwatch:
    """Time and CPU time from when it is made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._cpu = _cpu()

    def stop(self, records: int) -> Measured:
        return Measured(records, time.perf_counter() - self._started, _cpu() - self._cpu)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Broker:
    """Kafka for a benchmark: that of KAFKA_BOOTSTRAP_SERVERS, or one of its own.

    Args:
        login: librdkafka's options of a user, where the broker has users.
    """

    def __init__(self, bootstrap: str, login: Mapping[str, str] | None = None) -> None:
        self.connection = Connection(kafka={**(login or {}), "bootstrap.servers": bootstrap}, registry="")
        self._open = ExitStack()
        self._admin = self._open.enter_context(AdminClient(dict(self.connection.kafka)))

    def close(self) -> None:
        self._open.close()

    def topic(self, name: str, partitions: int) -> str:
        """A new topic, whose name begins with ``name``."""
        topic = f"{name}-{uuid.uuid4().hex[:8]}"
        for created in self._admin.create_topics([NewTopic(topic, partitions)]).values():
            created.result()
        return topic

    def delete(self, *topics: str) -> None:
        """Returns when the broker lists the topics no longer: who makes them again too early would find them there."""
        for deleted in self._admin.delete_topics(list(topics)).values():
            deleted.result()
        while not self._admin.list_topics(timeout=30).topics.keys().isdisjoint(topics):
            time.sleep(0.05)

    def fill(self, topic: str, values: Iterable[bytes], keys: Iterable[bytes] | None = None) -> None:
        """Writes the values, under keys of their own where none are given."""
        producer = confluent_kafka.Producer(
            {**self.connection.kafka, "partitioner": "murmur2_random", "linger.ms": 20}
        )
        for value, key in zip(values, keys or map(b"%d".__mod__, count()), strict=False):
            while True:
                try:
                    producer.produce(topic, value, key)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.flush()


@contextmanager
def broker() -> Iterator[Broker]:
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        with closing(Broker(given)) as existing:
            yield existing
        return
    folder = Path(tempfile.mkdtemp(prefix="tailrace-benchmark-"))
    kafka = LocalKafka(folder)
    say("starting a broker")
    kafka.start()
    try:
        with closing(Broker(kafka.bootstrap)) as started:
            yield started
    finally:
        kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)


Cases = Mapping[str, Callable[[], Measured]]


def interleave(cases: Cases, rounds: int) -> dict[str, list[Measured]]:
    """Runs each case once to warm up, which does not count, and then all of them ``rounds`` times, each round in
    another order: what one has written, the disk is still at when the next one runs.
    """
    for name, run in cases.items():
        say(f"warming up: {name} {run().rate:,.0f}/s")
    measured: dict[str, list[Measured]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in random.Random(number).sample(list(cases), len(cases)):
            measured[name].append(cases[name]())
            say(f"round {number + 1} of {rounds}: {name} {measured[name][-1].rate:,.0f}/s")
    return measured


def summary(measured: Mapping[str, Sequence[Measured]], base: str) -> dict[str, Any]:
    """Per case the median rate with its range, CPU per record, and the median ratio to ``base`` of its round."""
    return {
        name: {
            "records_per_second": spread([one.rate for one in runs]),
            "cpu_us_per_record": spread([one.cpu_seconds / one.records * 1e6 for one in runs]),
            "ratio": spread([one.rate / other.rate for one, other in zip(runs, measured[base], strict=True)]),
        }
        for name, runs in measured.items()
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    return parser


def show(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    for group, cases in result.items():
        print(group)
        for name, facts in cases.items():
            rate, ratio = facts["records_per_second"], facts["ratio"]
            print(
                f"  {name:24} {rate['median']:>10,.0f}/s ({rate['least']:,.0f} to {rate['most']:,.0f})"
                f"   {facts['cpu_us_per_record']['median']:5.2f} us CPU"
                f"   ratio {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"
            )
