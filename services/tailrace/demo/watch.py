"""Watches a lane and the loop's control topics from outside, as any consumer of them would."""

from __future__ import annotations

import threading
from typing import cast

from confluent_kafka import Consumer, TopicPartition

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import CONTROL_NAMES
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.state.records import ControlRecords
from tailrace.demo.observed import Seen
from tailrace.streaming.backends.kafka.clients import reader_options
from tailrace.streaming.records import Message, RecordRef

_REPORTS = (lanes.DRIFT_REPORTS, lanes.PERFORMANCE_REPORTS)
_CONTROL = (lanes.ALERTS, *_REPORTS, lanes.TRAINING_RUNS, lanes.ROLLOUTS)


class Watcher(threading.Thread):
    """Reads committed records only: of the lane from now on, of the control topics from their start."""

    def __init__(self, connection: Connection, model: str, lane: Lane) -> None:
        super().__init__(name="watcher", daemon=True)
        self.seen = Seen(model)
        self.error: BaseException | None = None
        self._lane = lane
        registry = RegistryClient(connection.registry, connection.registry_auth)
        self._codec, self._control = Codec(registry), ControlRecords.of(connection)
        self._stopping = threading.Event()
        options = reader_options(connection.kafka, "unused")
        self._consumer = Consumer(options | {"fetch.wait.max.ms": 20, "auto.offset.reset": "latest"})
        watched = (lane.requests, lane.predictions, lane.labels, lane.outcomes, lane.dead_letters, *_CONTROL)
        start = []
        for topic in watched:
            for partition in self._consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                first, end = self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=10
                )
                start.append(TopicPartition(topic, partition, first if topic in _CONTROL else end))
        self._consumer.assign(start)

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                for message in self._consumer.consume(2000, 0.05):
                    if message.error() is None and message.value() is not None:  # watermark records have none
                        self._take(cast(Message, message))
        except BaseException as error:
            self.error = error
        finally:
            self._consumer.close()

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)
        self.check()

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def _take(self, message: Message) -> None:
        at, lane, seen = RecordRef.of(message), self._lane, self.seen
        if at.topic == lane.requests:
            seen.request(at, message.timestamp()[1])
        elif at.topic == lane.predictions:
            seen.prediction(at, message.timestamp()[1], self._codec.decode(message.value()).record)
        elif at.topic == lane.labels:
            seen.labels += 1
        elif at.topic == lane.outcomes:
            seen.outcomes += 1
        elif at.topic == lane.dead_letters:
            seen.dead_letters += 1
        else:
            name = CONTROL_NAMES[at.topic]
            record = self._control.read(message)
            if record is not None:
                seen.control(name, record, at.offset)
