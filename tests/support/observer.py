"""An observer of topics that shares no code with the product: librdkafka and fastavro alone."""

from __future__ import annotations

import io
import json
import struct
import time
import urllib.request
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import fastavro
from confluent_kafka import Consumer, KafkaError, TopicPartition

Reference = tuple[str, int, int]
"""Topic, partition and offset of a record."""


class Seen(NamedTuple):
    at: Reference
    appended_ms: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


class Observer:
    def __init__(self, kafka: Mapping[str, str], registry: str, auth: Any = None) -> None:
        """``auth`` is ``user:password`` for the registry, or what gives it."""
        self._kafka, self._registry = kafka, registry.rstrip("/")
        login = auth() if callable(auth) else auth
        self._headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"} if login else {}
        self._schemas: dict[int, Any] = {}

    def read(
        self, topic: str, timeout: float = 60, since: Mapping[tuple[str, int], int] | None = None
    ) -> list[Seen]:
        """Every committed record of a topic, to an end that every partition has reported; where ``since`` says
        offsets by topic and partition, from these on.
        """
        consumer = Consumer(
            {
                **self._kafka,
                "group.id": "observer",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,  # so soon a partition's end is told, and not in half a second
            }
        )
        partitions = sorted(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, p, (since or {}).get((topic, p), 0)) for p in partitions])
        seen: dict[Reference, Seen] = {}  # by place: a client may fetch a record twice
        ended: set[int] = set()
        deadline = time.monotonic() + timeout
        while len(ended) < len(partitions):
            assert time.monotonic() < deadline, f"{topic} has no readable end after {timeout} s"
            for message in consumer.consume(5000, 0.02):
                if message.error() is not None:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    ended.add(message.partition())
                    continue
                ended.discard(message.partition())
                at = (message.topic(), message.partition(), message.offset())
                seen[at] = Seen(
                    at,
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    dict(message.headers() or []),
                )
        consumer.close()
        return list(seen.values())

    def ends(self, topic: str) -> dict[tuple[str, int], int]:
        """By topic and partition, where what is written from now on begins."""
        consumer = Consumer({**self._kafka, "group.id": "observer"})
        try:
            partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
            return {
                (topic, p): consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1]
                for p in partitions
            }
        finally:
            consumer.close()

    def decode(self, value: bytes) -> Any:
        magic, schema_id = struct.unpack(">bI", value[:5])
        assert magic == 0
        if schema_id not in self._schemas:
            asked = urllib.request.Request(f"{self._registry}/schemas/ids/{schema_id}", headers=self._headers)
            with urllib.request.urlopen(asked) as answer:
                self._schemas[schema_id] = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schemas[schema_id], None)

    def requests(self, lane: str) -> set[Reference]:
        """References of the requests, watermark records left out."""
        return {r.at for r in self.read(f"{lane}.requests") if "tailrace-mark" not in r.headers}

    def answers(self, lane: str, topic: str = "predictions") -> Counter[Reference]:
        """How often each request was answered: by a prediction or by a dead letter."""
        answered: Counter[Reference] = Counter()
        for record in self.read(f"{lane}.{topic}"):
            if record.value is not None:
                source = self.decode(record.value)["source"]
                answered[source["topic"], source["partition"], source["offset"]] += 1
        for record in self.read(f"{lane}.dead-letters"):
            topic_, partition, offset = (
                record.headers[f"tailrace-{name}"].decode() for name in ("topic", "partition", "offset")
            )
            answered[topic_, int(partition), int(offset)] += 1
        return answered
