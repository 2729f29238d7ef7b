"""Writes watermark records into silent partitions, once a second, in the lanes that live in wall time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import KafkaException

from tailrace.avro.codec import Codec, is_json
from tailrace.clock.silence import Silence, Traffic
from tailrace.contracts.records.input_size import LARGEST
from tailrace.contracts.records.json_input import JsonInput
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.lane_clocks import WALL, LaneClock, LaneClocks, record_of
from tailrace.errors import BadRecord, TailraceError, Unavailable
from tailrace.runtime.service import Service
from tailrace.streaming.backends.abstract import Fatal, LogError
from tailrace.streaming.backends.kafka.clients import BoundedProducer
from tailrace.streaming.backends.kafka.errors import log_errors
from tailrace.streaming.backends.kafka.reading import Ends, TopicReader
from tailrace.streaming.records import Message, Record
from tailrace.streaming.time_source import WaitingClock
from tailrace.streaming.watermark_records import watermark_record

log = logging.getLogger(__name__)

TICK_S = 1.0
_FLUSH_S = 10.0


class ClockLoop:
    """See README.md. Needs no group: a watermark record twice says nothing new, so several instances do no harm."""

    def __init__(self, service: Service, clock: WaitingClock) -> None:
        self._service, self._clock = service, clock
        self._records, self._codec = service.records, Codec(service.registry)
        self._contracts, self._clocks = Contracts(), LaneClocks()
        self._state = ControlState(self._records, self._contracts, self._clocks)
        self._silence, self._traffic = Silence(), Traffic()
        self._control: TopicReader | None = None
        self._requests: TopicReader | None = None
        self._watched: frozenset[str] = frozenset()
        self._ends = Ends(service.connection)
        own = {"client.id": service.instance, "linger.ms": 5, "logger": log}
        self._producer = BoundedProducer({**service.connection.kafka, **own})
        self.waiting: str | None = "reading the contracts"
        self.alive_ns = clock.perf_ns()

    def run(self) -> None:
        while not self._service.stop.is_set():
            try:
                with log_errors():
                    self._tick()
                self.waiting = None
            except (Unavailable, LogError, TailraceError) as error:
                if isinstance(error, Fatal):
                    raise
                self.waiting = str(error)
                log.warning("the next second again", extra={"reason": str(error)})
            self.alive_ns = self._clock.perf_ns()
            self._service.stop.wait(TICK_S)
        for reader in (self._control, self._requests, self._ends):
            if reader is not None:
                reader.close()
        self._producer.close()

    def _tick(self) -> None:
        self._read_control()
        lanes = {applied.contract.lane for applied in self._contracts.current.values()}
        self._claim(lanes - self._clocks.current.keys())
        self._write(list(self._watermarks(lane for lane in sorted(lanes) if self._is_wall(lane))))

    def _is_wall(self, lane: str) -> bool:
        clock = self._clocks.current.get(lane)
        return clock is not None and clock.owner == WALL

    def _read_control(self) -> None:
        if self._control is None:
            self._control = TopicReader(self._service.connection, self._state.topics)
        first = True
        while first or not self._control.caught_up():
            first = False
            for message in self._control.poll(0.2 if not self._control.caught_up() else 0.0):
                self._state.take([message])

    def _claim(self, lanes: set[str]) -> None:
        """Takes over the lanes without a clock whose requests are of now."""
        topics = frozenset(Lane(lane).requests for lane in lanes)
        if topics != self._watched:
            if self._requests is not None:
                self._requests.close()
            connection = self._service.connection
            self._requests = TopicReader(connection, sorted(topics), from_end=True) if topics else None
            self._watched = topics
        if self._requests is None:
            return
        latest = {
            message.topic(): message for message in self._requests.poll(0.0) if 0 < len(message) <= LARGEST
        }
        for topic, message in sorted(latest.items()):
            lane = Lane.of(topic).name
            time, appended = self._event_time(lane, message), message.timestamp()[1]
            if time is not None and self._traffic.is_live(lane, time, appended):
                revision = self._clocks.revision(lane) + 1
                clock = LaneClock(WALL, "clock", self._clock.now_ms(), revision)
                self._write([self._records.record("Clock", record_of(lane, clock), key=lane)])
                log.info("a lane lives in wall time", extra={"lane": lane})

    def _event_time(self, lane: str, message: Message) -> int | None:
        """The event time of a request; None where it cannot be read."""
        appended = message.timestamp()[1]
        for applied in self._contracts.on_lane(lane):
            name = applied.contract.event_time.name
            try:
                record: Mapping[str, Any]
                if is_json(message.value()):
                    record = JsonInput(applied.contract, "requests").parse(message.value() or b"")
                else:
                    record = self._codec.decode(message.value()).record
            except BadRecord:
                continue
            time = record.get(name, record)
            if time is None or type(time) is int:  # any schema may have a field of that name
                return appended if time is None else time
        return None

    def _watermarks(self, lanes: Iterator[str]) -> Iterator[Record]:
        topics = [t for lane in map(Lane, lanes) for t in (lane.requests, lane.labels, lane.actions)]
        ends = self._ends.of(topics) if topics else {}
        for partition, time in self._silence.broken_at(ends, self._clock.now_ms()).items():
            yield watermark_record(*partition, time)

    def _write(self, records: list[Record]) -> None:
        try:
            self._producer.deliver(records, _FLUSH_S)
        except KafkaException as failed:
            if len(self._producer):
                # They may arrive all the same; the next ones are as late, or later.
                self._producer.renew()
            raise Unavailable(f"Kafka did not take the marks: {failed.args[0].str()}") from failed
