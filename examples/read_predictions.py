"""Reads predictions without anything of Tailrace: a Kafka consumer, fastavro and the schema registry.

Run it after `eval "$(tailrace env)"`. It goes on where the group has stopped, and ends when nothing comes any more.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import struct
import urllib.request
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaException

OPTIONS = ("BOOTSTRAP_SERVERS", "SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD")
IDLE_S = 20.0


@functools.cache
def schema(schema_id: int) -> Any:
    """The schema with which a record was written."""
    request = urllib.request.Request(f"{os.environ['SCHEMA_REGISTRY_URL']}/schemas/ids/{schema_id}")
    login = os.environ["SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"].encode()
    request.add_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
    with urllib.request.urlopen(request, timeout=10) as response:
        return fastavro.parse_schema(json.loads(json.load(response)["schema"]))


def decode(value: bytes) -> Any:
    """Confluent's wire format: a zero byte, the schema's id in four bytes, and Avro."""
    (schema_id,) = struct.unpack(">xI", value[:5])
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), schema(schema_id), None)


def main() -> None:
    kafka = {name.lower().replace("_", "."): os.environ[f"KAFKA_{name}"] for name in OPTIONS}
    # Answers are written in transactions: without read_committed, aborted ones show.
    reading = {
        "group.id": "parcel-desk",
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }
    with Consumer({**kafka, **reading}) as consumer:
        consumer.subscribe(["parcels.predictions"])
        while (message := consumer.poll(IDLE_S)) is not None:
            if message.error():
                raise KafkaException(message.error())
            if (value := message.value()) is None:
                continue  # a record without a value only tells the time
            event = decode(value)
            print(f"{message.offset()}: {event['key']} {event['action']} {event['score']:.3f}")


if __name__ == "__main__":
    main()
