"""The request of a prediction, as it was received: the event holds it."""

from __future__ import annotations

from typing import Any, NamedTuple

from tailrace.contracts.lanes import Lane
from tailrace.contracts.schemas import subject
from tailrace.kit.codec import Codec
from tailrace.kit.messages import Message, Source
from tailrace.kit.registry import Registry


class Received(NamedTuple):
    """A request as a message. Its append time is the effective event time, which is what counted if it had none."""

    source: Source
    its_key: bytes | None
    its_value: bytes
    event_time: int

    def topic(self) -> str:
        return self.source.topic

    def partition(self) -> int:
        return self.source.partition

    def offset(self) -> int:
        return self.source.offset

    def key(self) -> bytes | None:
        return self.its_key

    def value(self) -> bytes | None:
        return self.its_value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 2, self.event_time


def received(prediction: Message, codec: Codec, registry: Registry) -> Received:
    """The request that a prediction carries. Raises BadRecord where the event cannot be read."""
    schema_id, event = codec.decode(prediction.value())
    schema: Any = codec.writer_schema(schema_id)
    request_schema = next(f["type"] for f in schema["fields"] if f["name"] == "request")
    source = Source(**event["source"])
    lane = Lane(source.topic.removesuffix(".requests"))
    request_id = registry.register(subject(lane.requests, event["model"], lane.name), request_schema)
    return Received(source, prediction.key(), codec.encode(request_id, event["request"]), event["event_time"])
