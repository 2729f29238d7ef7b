"""Sends a file's rows as the application would have sent them, in order of event time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.client.errors import DeliveryFailed
from tailrace.client.kafka import producer
from tailrace.connection import Connection
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import subject
from tailrace.contracts.state.lane_clocks import REPLAY
from tailrace.errors import TailraceError
from tailrace.replay.claim import claimed_lane, set_clock
from tailrace.replay.schedule import LABEL, NOTHING, REQUEST, LaterRecords, ReplayClock, ReplayPace, schedule
from tailrace.runtime.patience import Patience
from tailrace.streaming.backends.kafka.clients import BoundedProducer
from tailrace.streaming.ids import key_text
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.records import Record
from tailrace.streaming.watermark_records import watermark_record

_CHUNK = 1_000
_TICK_S = 0.25
_ACTION = "tailrace action"


@dataclass
class Sent:
    """What a replay sent."""

    requests: int = 0
    labels: int = 0
    actions: int = 0
    marks: int = 0
    seconds: float = 0.0
    last_ms: int | None = None
    """Event time of the last record."""
    is_interrupted: bool = False
    """Whether somebody stopped it before its end."""


class Replay:
    """One pass over a file's rows into a model's lane, whose clock it owns meanwhile.

    Event times come from the rows, so the lane's passing time does too: an input partition (requests, labels,
    actions) that falls silent is sent a watermark record with the event time reached, at least every 1,000 records and
    four times a second. At the end every input partition gets a last one, at the last event time plus the
    contract's lateness: nothing older is to come, so every window that ended by then may close. Where the file comes
    up to now, that time has not come yet, and the record says now.

    Args:
        rows: as ``files.rows.read_rows`` gives them, sorted by event time.
        labels: which rows' labels are sent, and when.
        actions: about which rows it is sent what was really done, and when.
        done: the actions, one for each of ``actions``.
        rate: records per second, or None.
        speed: event-time seconds per second, or None; with neither, as fast as Kafka takes them.
    """

    def __init__(
        self,
        connection: Connection,
        contract: ModelContract,
        rows: pl.DataFrame,
        labels: LaterRecords = NOTHING,
        actions: LaterRecords = NOTHING,
        done: Sequence[str] = (),
        rate: float | None = None,
        speed: float | None = None,
    ) -> None:
        self._connection, self._contract = connection, contract
        acted = dict(zip(actions.row.tolist(), done, strict=True))
        self._rows = rows.with_columns(
            pl.Series(_ACTION, [acted.get(row) for row in range(len(rows))], dtype=pl.String)
        )
        self._lane = Lane(contract.lane)
        self._codec = Codec(registry := RegistryClient(connection.registry, connection.registry_auth))
        inputs = (self._lane.requests, self._lane.labels, self._lane.actions)
        self._schema_ids = {topic: _schema_id(registry, topic, contract) for topic in inputs}
        self.sent = Sent()
        self._failures: list[str] = []
        self.plan = schedule(rows[contract.event_time.name].to_numpy(), labels, actions)
        self._pace = ReplayPace(self.plan.time, rate, speed)
        self._clock = ReplayClock(inputs, _partitions(connection, self._lane.requests))
        self._partition_count = len(self._clock.partitions) // len(inputs)
        self._producer: BoundedProducer
        self._is_held = threading.Event()

    def hold(self) -> None:
        """Event time stands still: nothing is sent until `go_on`. From another thread."""
        self._is_held.set()

    def go_on(self) -> None:
        """Event time goes on from where it was held."""
        self._is_held.clear()

    def run(self, progress: Callable[[int], None] = lambda done: None) -> Sent:
        """Sends everything and waits until Kafka has taken it. ``progress`` is called with how many are sent.

        A KeyboardInterrupt ends it: what was sent by then is waited for, and no last mark says that nothing older is to
        come. The lane's clock stays the replay's afterwards, until somebody else takes it.

        Raises:
            DeliveryFailed: Kafka refused some.
            UsageError: another replay sends into the lane.
        """
        with claimed_lane(self._connection, self._lane.name):
            if len(self.plan):
                set_clock(self._connection, self._lane.name, REPLAY, int(self.plan.time[0]))
            self._producer = producer(self._connection)
            try:
                return self._run(progress)
            finally:
                self._producer.close()

    def _run(self, progress: Callable[[int], None]) -> Sent:
        began = time.monotonic()
        try:
            self._send_all(progress)
        except KeyboardInterrupt:
            self.sent.is_interrupted = True
        self._flush()
        self.sent.seconds = time.monotonic() - began
        return self.sent

    def _send_all(self, progress: Callable[[int], None]) -> None:
        plan, sent, ticked = self.plan, 0, 0
        began = last_tick = time.monotonic()
        while sent < len(plan):
            if self._is_held.is_set():
                stopped = time.monotonic()
                while self._is_held.is_set():
                    self._producer.poll(0.05)
                began += time.monotonic() - stopped
            due = min(self._pace.due(time.monotonic() - began), sent + _CHUNK)
            if due > sent:
                self._send(slice(sent, due))
                sent = due
                progress(sent)
            now = time.monotonic()
            if sent and (sent - ticked >= _CHUNK or now - last_tick >= _TICK_S):
                reached = int(plan.time[sent - 1])
                self._write_watermarks(self._clock.tick(reached), reached)
                ticked, last_tick = sent, now
            self._producer.poll(min(0.05, self._pace.wait(sent, now - began)))
        if len(plan):
            last, now_ms = int(plan.time[-1]), int(time.time() * 1000)
            end = last_watermark(last, self._contract.event_time.lateness_ms, now_ms)
            self._write_watermarks(self._clock.partitions, end)

    def _send(self, part: slice) -> None:
        contract, plan = self._contract, self.plan
        drafts = self._rows[plan.row[part]].with_columns(pl.Series("_time", plan.time[part])).to_dicts()
        for kind, record in zip(plan.kind[part], drafts, strict=True):
            at, taken = record.pop("_time"), record.pop(_ACTION)
            label = record.pop(contract.target.name)
            record["model"] = contract.model
            if kind == REQUEST:
                topic = self._lane.requests
                self.sent.requests += 1
            else:
                record = {name: record[name] for name in ("request_id", contract.key.name, "model")}
                record[contract.event_time.name] = at
                if kind == LABEL:
                    topic = self._lane.labels
                    self.sent.labels += 1
                    record |= {contract.target.name: label, "labelled_by": "replay"}
                else:
                    topic = self._lane.actions
                    self.sent.actions += 1
                    record |= {"action": taken, "by": "replay"}
            key = record[contract.key.name]
            message_key = key_text(record["request_id"] if key is None else key).encode()
            partition = partition_of(message_key, self._partition_count)
            value = self._codec.encode(self._schema_ids[topic], record)
            self._produce(Record(topic, value, message_key, partition=partition))
            self.sent.last_ms = at
            self._clock.wrote(topic, partition, at)

    def _write_watermarks(self, partitions: list[tuple[str, int]], time_ms: int) -> None:
        for topic, partition in partitions:
            self._produce(watermark_record(topic, partition, time_ms))
            self.sent.marks += 1

    def _produce(self, record: Record) -> None:
        assert record.partition is not None
        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                partition=record.partition,
                headers=record.headers,
                on_delivery=partial(self._delivered, record.key),
            )
        except KafkaException as error:
            raise DeliveryFailed(error.args[0].str(), [str(record.key)]) from error

    def _delivered(self, key: bytes | None, error: KafkaError | None, _: Any) -> None:
        if error is not None:
            self._failures.append(f"{key!r} ({error.str()})")

    def _flush(self) -> None:
        patience = Patience(60)
        while patience.look(unsent := self._producer.flush(1)) and unsent:
            pass
        if self._failures:
            raise DeliveryFailed("see below", self._failures)
        if unsent:
            where = self._connection.bootstrap
            raise TailraceError(f"Kafka at {where} has taken none of the last {unsent} records in a minute")


def last_watermark(last_ms: int, lateness_ms: int, now_ms: int) -> int:
    """The watermark at a replay's end: none may be further ahead of now than records are."""
    return max(last_ms, min(last_ms + lateness_ms, now_ms))


def labels_after(
    rows: pl.DataFrame, contract: ModelContract, delay_ms: int, until_ms: int
) -> tuple[LaterRecords, int]:
    """Each known label so long after its request; and how many are left out, known only after ``until_ms``."""
    due = rows[contract.event_time.name].to_numpy() + delay_ms
    known = rows[contract.target.name].is_not_null().to_numpy()
    sent = np.flatnonzero(known & (due <= until_ms))
    return LaterRecords(sent, due[sent]), int(np.count_nonzero(known)) - len(sent)


def _partitions(connection: Connection, topic: str) -> int:
    with AdminClient({**connection.kafka, "log_level": 0}) as admin:
        metadata = admin.list_topics(topic, timeout=10).topics[topic]
    if metadata.error is not None:
        raise TailraceError(
            f"no topic {topic} ({metadata.error.str()}): `tailrace apply` makes a lane's topics"
        )
    return len(metadata.partitions)


def _schema_id(registry: RegistryClient, topic: str, contract: ModelContract) -> int:
    schema = registry.latest(subject(topic, contract.model, contract.lane))
    if schema is None:
        raise TailraceError(f"the registry has no schema for {topic}: `tailrace apply` registers it")
    return schema.id
