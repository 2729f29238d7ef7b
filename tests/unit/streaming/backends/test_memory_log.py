from __future__ import annotations

import pytest
from tests.support.log_conformance import LogConformance

from tailrace.streaming.backends.abstract import Backend, TransactionalProducer
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog


class MemoryWorld:
    max_message_bytes = 1_000

    def __init__(self) -> None:
        self.log = MemoryLog(max_message_bytes=self.max_message_bytes)
        self.clock = MemoryClock(self.log)

    def backend(self) -> Backend:
        return self.log.backend()

    def create_topic(self, name: str, partitions: int) -> None:
        self.log.create_topic(name, partitions)

    def append(self, topic: str, value: bytes, key: bytes | None = None, partition: int = 0) -> None:
        self.log.append(topic, value, key, partition=partition)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        self.log.delete_records(topic, partition, before)

    def flush(self, producer: TransactionalProducer) -> None:
        """Nothing is buffered."""


class TestMemoryLog(LogConformance):
    @pytest.fixture
    def world(self) -> MemoryWorld:
        return MemoryWorld()
