"""Records of any topic as people read them: decoded, with coordinates; dead letters and watermark records as well."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from tailrace.avro.codec import Codec, is_json
from tailrace.avro.registry import RegistryClient
from tailrace.cli.output import to_json
from tailrace.client.kafka import Follower, before_end
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.errors import BadRecord
from tailrace.streaming import dead_letters
from tailrace.streaming.records import Message
from tailrace.streaming.watermark_records import watermark_time

_LONGEST = 2_000  # characters of an undecodable value that are shown


def iso(ms: int) -> str:
    """A time in milliseconds since 1970 as ISO 8601; the number itself where no calendar has it."""
    try:
        return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(ms)


def shown(message: Message, codec: Codec) -> dict[str, Any]:
    """A record as a mapping: topic, partition, offset, time, key, and one of value, mark, dead_letter,
    bytes.
    """
    key = message.key()
    shown: dict[str, Any] = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "time": iso(message.timestamp()[1]),
        "key": None if key is None else key.decode(errors="backslashreplace"),
    }
    if (watermark_ms := watermark_time(message)) is not None:
        return shown | {"mark": iso(watermark_ms)}
    if message.topic().endswith(".dead-letters"):
        return shown | {"dead_letter": dead_letter(message, codec)}
    return shown | _value(message.value(), codec, message.topic())


def dead_letter(message: Message, codec: Codec) -> dict[str, Any]:
    """What a dead letter says, its original value decoded as far as it can be."""
    try:
        dead = dead_letters.parse(message)
    except ValueError as error:
        return {"code": "unreadable", "reason": str(error)} | _value(message.value(), codec)
    return {
        "code": dead.code,
        "field": dead.field,
        "reason": dead.reason,
        "source": str(dead.source),
        "service": dead.service,
    } | _value(dead.value, codec)


def _value(value: bytes | None, codec: Codec, topic: str | None = None) -> dict[str, Any]:
    if value is None:
        return {"value": None}
    if topic == lanes.CHUNKS:
        return {"bytes": f"{len(value):,} bytes of a model package"}
    try:
        return {"value": json.loads(value) if is_json(value) else codec.decode(value).record}
    except (BadRecord, ValueError):
        text = value.decode(errors="backslashreplace")
        return {"bytes": text[:_LONGEST] + (f"... ({len(value):,} bytes)" if len(text) > _LONGEST else "")}


def line(record: dict[str, Any]) -> str:
    where = f"{record['partition']}/{record['offset']}"
    what = next(record[name] for name in ("mark", "dead_letter", "bytes", "value") if name in record)
    text = what if isinstance(what, str) else to_json(what)
    kind = "mark " if "mark" in record else ""
    return f"{where:<10} {record['time']}  {record['key'] or '-'}  {kind}{text}"


def last_records(
    connection: Connection, topic: str, limit: int, follow: bool, marks: bool = False
) -> Iterator[dict[str, Any]]:
    """The topic's last ``limit`` records by append time, then, where asked, what comes.

    Args:
        marks: watermark records count and are shown, too.
    """
    codec = Codec(RegistryClient(connection.registry, connection.registry_auth))
    # Transaction markers take offsets too, and so do watermark records: on a quiet lane nearly all of them.
    back = 2 * limit + 100
    while True:
        follower = Follower(connection, [topic], before_end(back))
        with closing(follower):
            messages = [message for message in _to_end(follower) if marks or watermark_time(message) is None]
            if len(messages) < limit and not follower.began_at_start():
                back *= 8
                continue
            messages.sort(key=lambda m: (m.timestamp()[1], m.partition(), m.offset()))
            yield from (shown(message, codec) for message in messages[max(len(messages) - limit, 0) :])
            while follow:
                message = follower.poll(0.5)
                if message is not None and (marks or watermark_time(message) is None):
                    yield shown(message, codec)
            return


def _to_end(follower: Follower) -> Iterator[Message]:
    while not follower.caught_up():
        if (message := follower.poll(0.1)) is not None:
            yield message
