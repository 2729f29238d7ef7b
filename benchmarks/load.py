"""Requests at a steady rate, and publications of new versions while they go on."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import ExitStack
from itertools import cycle
from typing import NamedTuple

import confluent_kafka

from benchmarks.harness import Broker
from benchmarks.running import Requests, Running, until
from tailrace.avro.codec import Codec
from tailrace.contracts.records import lanes
from tailrace.contracts.state.records import ControlRecords
from tailrace.signing.records import sign_command
from tailrace.signing.trust import own_key
from tailrace.streaming.backends.kafka.reading import TopicReader
from tailrace.streaming.records import Message


class SteadyLoad(threading.Thread):
    """Sends requests over and over at a rate a second until it is stopped."""

    def __init__(self, kafka: Broker, topic: str, requests: Requests, rate: int) -> None:
        super().__init__(daemon=True)
        self._producer = confluent_kafka.Producer(
            {**kafka.connection.kafka, "linger.ms": 0, "partitioner": "murmur2_random"}
        )
        self._topic = topic
        self._requests = cycle(requests)
        self._rate = rate
        self._stopping = threading.Event()
        self.sent = 0

    def run(self) -> None:
        began = time.perf_counter()
        while not self._stopping.is_set():
            due = began + self.sent / self._rate
            if (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            key, value = next(self._requests)
            self._producer.produce(self._topic, value, key)
            self._producer.poll(0)
            self.sent += 1
        self._producer.flush()
        self._producer.close()

    def stop(self) -> None:
        self._stopping.set()
        self.join(30)


class Swap(NamedTuple):
    """When the records of one publication were appended, by the broker's clock, in seconds."""

    manifest: float
    candidate: float
    command: float
    champion: float
    first_prediction: float


class Swaps(threading.Thread):
    """Watches predictions and publications, and promotes versions as soon as they are candidates.

    Attributes:
        predictions: when each was appended, in seconds by the broker's clock.
    """

    def __init__(self, tailrace: Running) -> None:
        super().__init__(daemon=True)
        self._tailrace = tailrace
        self._model = tailrace.contract.model
        self._codec = Codec(tailrace.registry)
        self._control = ControlRecords.of(tailrace.connection)
        self._key = own_key(tailrace.home)
        self._topics = [tailrace.lane.predictions, lanes.MANIFESTS, lanes.COMMANDS, lanes.ROLLOUTS]
        self._reader = TopicReader(tailrace.connection, self._topics)
        self._producer = confluent_kafka.Producer(
            {**tailrace.connection.kafka, "linger.ms": 0, "partitioner": "murmur2_random"}
        )
        self._stopping = threading.Event()
        self._appended: dict[tuple[str, int], float] = {}
        self.predictions: list[float] = []

    def run(self) -> None:
        while not self._stopping.is_set():
            for message in self._reader.poll(0.1):
                if message.value() is not None:  # watermark records
                    self._take(message, message.timestamp()[1] / 1e3)
        self._reader.close()
        self._producer.close()

    def _take(self, message: Message, at: float) -> None:
        if message.topic() == self._topics[0]:
            self.predictions.append(at)
            version = self._codec.decode(message.value()).record["version"]
            self._appended.setdefault(("prediction", version), at)
            return
        record = self._control.read(message)
        assert record is not None
        if message.topic() == lanes.ROLLOUTS:
            self._appended[record["step"], record["version"]] = at
            if record["step"] == "candidate":
                self._promote(record["version"])
        else:
            self._appended[message.topic(), record["version"]] = at

    def _promote(self, version: int) -> None:
        command = {
            "command_id": str(uuid.uuid4()),
            "model": self._model,
            "command": "promote",
            "version": version,
            "follows": None,  # the rollout goes on by itself meanwhile
            "by": "benchmark",
            "reason": "benchmark",
            "issued_at": int(time.time() * 1e3),
        }
        record = self._control.record("Command", sign_command(self._control.home, command, self._key))
        self._producer.produce(record.topic, record.value, record.key)
        self._producer.flush()

    def swap(self) -> Swap:
        """Publishes the next version, of which no service has anything yet, and waits until it answers."""
        self._tailrace.forget_chunks()
        version = self._tailrace.publish().version
        steps = [
            (lanes.MANIFESTS, version),
            ("candidate", version),
            (lanes.COMMANDS, version),
            ("promote", version),
            ("prediction", version),
        ]
        until(f"version {version} answers", lambda: steps[-1] in self._appended, every_s=0.01)
        until(f"version {version} is known", lambda: all(step in self._appended for step in steps))
        return Swap(*(self._appended[step] for step in steps))

    def stop(self) -> None:
        self._stopping.set()
        self.join(30)


def swapping(stack: ExitStack, kafka: Broker, tailrace: Running, rate: int) -> tuple[SteadyLoad, Swaps]:
    """Version 1 in service under a load, and who publishes the others; the rollout service decides about them."""
    load = SteadyLoad(kafka, tailrace.lane.requests, tailrace.requests(20_000), rate)
    load.start()
    stack.callback(load.stop)
    swaps = Swaps(tailrace)
    swaps.start()
    stack.callback(swaps.stop)
    until("version 1 answers", lambda: swaps.predictions)
    return load, swaps
