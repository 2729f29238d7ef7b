"""The registry's log in Kafka: one writer at a time, and every answer as of the log's end.

The writer is transactional under one fixed id. Whoever takes that id fences off whoever had it, so from
taking it to the next commit nobody else can have written; a commit that goes through proves that what was
decided was decided on everything there is. So several registries on one cluster never give two schemas one
id.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tailrace.errors import Unavailable
from tailrace.local.registry_state import LogRecord, RegistryState
from tailrace.services import REGISTRY, SCHEMAS
from tailrace.streaming.backends.kafka.clients import reader_options
from tailrace.streaming.backends.kafka.topics import Topic, ensure_topics

_T = TypeVar("_T")
Decision = tuple[Sequence[LogRecord], _T]
"""What is to be written, and what is to be answered."""

TOPIC = Topic(
    name=SCHEMAS,
    about="What the schema registry knows, in the form of Confluent's registry.",
    owner="the registry",
    key="JSON",
    value="JSON",
    written_by=("registry",),
    read_by=("registry",),
    partitions=1,
    cleanup="compact",
    retention_ms=-1,
    keep=None,
    max_message_bytes=4 * 1024 * 1024,
)
[_TRANSACTIONAL_ID] = REGISTRY.transactional_ids
# What goes wrong is raised, and being fenced off is nothing wrong.
_SILENT = logging.getLogger(f"{__name__}.librdkafka")
_SILENT.setLevel(logging.CRITICAL + 1)


class RegistryLog:
    """Reads and writes the log. One lock: calls come from the server's threads, one after the other.

    Args:
        kafka: librdkafka options, ``bootstrap.servers`` among them.
        patience: seconds that a call waits for Kafka.
    """

    def __init__(self, kafka: Mapping[str, str], patience: float = 8.0) -> None:
        self._patience = patience
        self._kafka: dict[str, Any] = {**kafka, "logger": _SILENT}
        self._lock = threading.Lock()
        self._admin: Any = None
        self._consumer: Any = None
        self._producer: Any = None
        self._next = 0
        self._cluster: str | None = None
        self._state = RegistryState()

    def cached(self) -> RegistryState:
        """What is known without asking Kafka: good for what never changes, a schema by its id."""
        return self._state

    def read(self) -> RegistryState:
        """Everything written before this call. Raises `Unavailable` where Kafka does not answer."""

        def attempt() -> RegistryState:
            self._catch_up()
            return self._state

        return self._retry(attempt)

    def write(self, decide: Callable[[RegistryState], Decision[_T]]) -> _T:
        """Writes what ``decide`` makes of the state, all or nothing; returns its answer once reads show it.

        Where somebody else wrote meanwhile, ``decide`` is asked again with the new state. What it raises is
        raised. Raises `Unavailable` where Kafka does not answer.
        """

        def attempt() -> _T:
            try:
                self._fence_others()
                self._catch_up()
                records, answer = decide(self._state)
                if records:
                    self._catch_up(self._commit(records))
                return answer
            except KafkaException:
                self._producer = None
                raise

        return self._retry(attempt)

    def cluster_id(self) -> str:
        """The id of the Kafka cluster. Raises `Unavailable` where Kafka does not answer."""

        def attempt() -> str:
            self._cluster = self._cluster or str(
                self._client().list_topics(timeout=self._patience).cluster_id
            )
            return self._cluster

        return self._retry(attempt)

    def close(self) -> None:
        with self._lock:
            self._producer = self._admin = None
            if self._consumer is not None:
                self._consumer.close()

    def _retry(self, attempt: Callable[[], _T]) -> _T:
        deadline = time.monotonic() + self._patience
        with self._lock:
            while True:
                try:
                    return attempt()
                except KafkaException as error:
                    self._admin = None
                    if time.monotonic() > deadline:
                        raise Unavailable(f"Kafka does not answer: {error.args[0].str()}") from error
                    time.sleep(0.05)

    def _fence_others(self) -> None:
        if self._producer is not None:
            return
        options = {
            "transactional.id": _TRANSACTIONAL_ID,
            "transaction.timeout.ms": 10_000,
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 20,
            "message.max.bytes": TOPIC.max_message_bytes,
        }
        producer = Producer({**self._kafka, **options})
        producer.init_transactions(self._patience)
        # What others began is ended by now; what they had committed is below this end.
        self._catch_up(committed=False)
        self._producer = producer

    def _commit(self, records: Sequence[LogRecord]) -> int:
        delivered: list[int] = []

        def on_delivery(error: Any, message: Any) -> None:
            if error is None:
                delivered.append(message.offset())

        self._producer.begin_transaction()
        for key, value in records:
            text = None if value is None else json.dumps(value, ensure_ascii=False).encode()
            # Compaction goes by the key's bytes: one subject and version must always have the same ones.
            name = json.dumps(key, separators=(",", ":"), ensure_ascii=False).encode()
            self._producer.produce(TOPIC.name, text, name, partition=0, on_delivery=on_delivery)
        self._producer.commit_transaction(self._patience)
        return max(delivered) + 1

    def _catch_up(self, end: int | None = None, *, committed: bool = True) -> None:
        """Folds the log up to ``end``, by default its end as it is now."""
        if self._consumer is None:
            self._open()
        deadline = time.monotonic() + self._patience
        if end is None:
            end = self._end(committed)
        if end < self._next:
            self._open()  # the log is another one than before
        while self._next < end:
            message = self._consumer.poll(0.1)
            if message is None:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"{TOPIC.name} is not readable up to offset {end} within {self._patience:.0f} s"
                    )
            elif message.error() is None:
                self._state.apply(message.key(), message.value())
                self._next = message.offset() + 1
            elif message.error().code() == KafkaError._PARTITION_EOF:
                # The end counts markers and aborted records, which are never handed over.
                self._next = max(self._next, message.offset())
            elif not message.error().retriable() and message.error().code() > 0:
                self._consumer = None
                raise KafkaException(message.error())

    def _open(self) -> None:
        ensure_topics(self._kafka, [TOPIC], self._patience)
        consumer = Consumer(reader_options(self._kafka, _TRANSACTIONAL_ID) | {"fetch.wait.max.ms": 10})
        consumer.assign([TopicPartition(TOPIC.name, 0, 0)])
        self._state, self._next = RegistryState(), 0
        self._consumer = consumer

    def _client(self) -> Any:
        if self._admin is None:
            # Offsets are asked of the leader that the client knows, under the epoch that it knows. After a
            # broker came back it keeps being refused as outdated; a new client asks who leads.
            self._admin = AdminClient(self._kafka)
        return self._admin

    def _end(self, committed: bool) -> int:
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        asked = self._client().list_offsets(
            {TopicPartition(TOPIC.name, 0): OffsetSpec.latest()},  # type: ignore[no-untyped-call]
            isolation_level=level,
            request_timeout=self._patience,
        )
        return int(next(iter(asked.values())).result().offset)
