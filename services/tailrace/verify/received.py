"""The request of a prediction, as it was received: the event holds it."""

from __future__ import annotations

from typing import Any

from tailrace.avro.codec import Codec
from tailrace.avro.registry import Registry
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import subject
from tailrace.streaming.records import Message, PlainMessage, RecordRef


def received(prediction: Message, codec: Codec, registry: Registry) -> Message:
    """The request that a prediction carries, appended at its effective event time: that is what counted if it had none.

    Raises:
        BadRecord: the event cannot be read.
    """
    schema_id, event = codec.decode(prediction.value())
    schema: Any = codec.writer_schema(schema_id)
    request_schema = next(f["type"] for f in schema["fields"] if f["name"] == "request")
    source = RecordRef(**event["source"])
    lane = Lane.of(source.topic)
    request_id = registry.register(subject(lane.requests, event["model"], lane.name), request_schema)
    value = codec.encode(request_id, event["request"])
    return PlainMessage(*source, value, prediction.key(), timestamp_ms=event["event_time"])
