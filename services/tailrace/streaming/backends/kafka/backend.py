"""The log on Apache Kafka, through librdkafka."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from confluent_kafka.admin import AdminClient

from tailrace.connection import Connection
from tailrace.streaming.backends.abstract import History
from tailrace.streaming.backends.kafka.consumer import KafkaConsumer
from tailrace.streaming.backends.kafka.errors import log_errors
from tailrace.streaming.backends.kafka.places import CALL_S
from tailrace.streaming.backends.kafka.producer import KafkaProducer
from tailrace.streaming.backends.kafka.reading import HistoryReader, TopicReader

log = logging.getLogger(__name__)

BATCH_S = 30.0


class KafkaBackend:
    """One client's way to Kafka. Its consumers lose their partitions when a batch takes longer than ``batch_s``."""

    def __init__(self, connection: Connection, client_id: str, *, batch_s: float = BATCH_S) -> None:
        self._connection = connection
        self._batch_s = batch_s
        own = {"client.id": client_id, "reconnect.backoff.max.ms": 1_000}
        self._common: dict[str, Any] = {**connection.kafka, **own}
        self._open = ExitStack()
        self._admin: AdminClient | None = None

    def close(self) -> None:
        """Ends what it keeps for itself; consumers, producers and readers are closed by who has asked for them."""
        self._open.close()
        self._admin = None

    def topics(self) -> Mapping[str, int]:
        with log_errors():
            if self._admin is None:
                self._admin = self._open.enter_context(AdminClient(self._common, logger=log))
            topics = self._admin.list_topics(timeout=CALL_S).topics
        return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}

    def consumer(self, group: str, *, co_partitioned: bool = False) -> KafkaConsumer:
        poll_ms = round(1_000 * self._batch_s)
        return KafkaConsumer(self._common, group, co_partitioned=co_partitioned, max_poll_interval_ms=poll_ms)

    def producer(self, transactional_id: str) -> KafkaProducer:
        return KafkaProducer(self._common, transactional_id)

    def reader(self, topics: Sequence[str]) -> TopicReader:
        return TopicReader(self._connection, topics)

    def history(self, stretches: History) -> HistoryReader:
        return HistoryReader(self._connection, stretches)
