"""What nobody should have written to a control topic, one of each kind."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.avro.codec import HEADER, MAGIC
from tailrace.avro.registry import Registry
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, control_schema
from tailrace.signing.records import HEADER as SIGNATURE
from tailrace.streaming.records import Headers, Record

KEYS = (None, b"", b"\xff\xfe", b"m")
HEADERS: tuple[Headers, ...] = ((), [(SIGNATURE, None)], [(SIGNATURE, b"x")], [(SIGNATURE, b"\xff" * 9)] * 2)
OTHER = {"type": "record", "name": "Other", "namespace": "t", "fields": [{"name": "model", "type": "long"}]}


def values(registry: Registry) -> dict[str, bytes | None]:
    """By what each of them is. Other schemas are registered: bodies that nobody meant for them are garbage too."""
    known = [
        registry.register(f"{topic}-value", control_schema(name)) for name, topic in CONTROL_RECORDS.items()
    ]
    other = registry.register("control-garbage-value", OTHER)
    bodies = {"nothing": b"", "zeros": bytes(40), "twos": b"\x02" * 60, "ones": b"\xff" * 40}
    return {
        "a tombstone": None,
        "an empty value": b"",
        "text": b"garbage",
        "JSON": b'{"model": "m"}',
        "a header cut short": b"\x00\x00",
        "no schema": HEADER.pack(MAGIC, 0),
        "a schema that nobody knows": HEADER.pack(MAGIC, 2**31 - 1) + b"\x00",
        "the largest id": b"\x00\xff\xff\xff\xff",
        "a record of another schema": HEADER.pack(MAGIC, other) + b"\x02",
        **{
            f"schema {number} with {what}": HEADER.pack(MAGIC, number) + body
            for number in known
            for what, body in bodies.items()
        },
    }


def garbage(topic: str, registry: Registry) -> Iterator[Record]:
    """Each value under each key, with signatures that are none."""
    for number, value in enumerate(values(registry).values()):
        for at, key in enumerate(KEYS):
            yield Record(topic, value, key, HEADERS[(number + at) % len(HEADERS)])
