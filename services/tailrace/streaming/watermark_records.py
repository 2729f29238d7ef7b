"""Marks: passing time, written into the log, so that silence in a partition can be told from waiting.

A mark is a record without key and value whose header carries an event time. It is written to each partition
of a lane that has been silent, and passed on in order by whoever derives a topic from it. A mark may be about
one of several streams that share a partition, and may say how far its writer had read its own input.
"""

from __future__ import annotations

import re

from tailrace.streaming.records import Message, Record

HEADER = "tailrace-mark"
STREAM_HEADER = "tailrace-mark-stream"
OFFSET_HEADER = "tailrace-mark-offset"
_DECIMAL = re.compile(rb"-?[0-9]{1,18}")

EARLIEST_MS = -62_135_596_800_000
"""The year 1: no event is earlier."""


def mark(
    topic: str,
    partition: int,
    event_time_ms: int,
    *,
    stream: str | None = None,
    offset: int | None = None,
) -> Record:
    """The mark that says: what comes after in this partition is no earlier than ``event_time_ms`` by the
    partition's clock.

    Args:
        stream: of which of the streams that share the partition it is said; None: of all.
        offset: up to where, including, the writer had read the partition of the same number that it reads.
    """
    headers = [(HEADER, b"%d" % event_time_ms)]
    if stream is not None:
        headers.append((STREAM_HEADER, stream.encode()))
    if offset is not None:
        headers.append((OFFSET_HEADER, b"%d" % offset))
    return Record(topic, None, None, headers, partition)


def mark_time(message: Message) -> int | None:
    """The event time of a mark in milliseconds; None where the message is no mark."""
    if message.value() is not None:
        return None
    return _number(message, HEADER)


def mark_stream(message: Message) -> str | None:
    """The stream that a mark is about; None where it names none."""
    found = _content(message, STREAM_HEADER)
    return found.decode(errors="replace") if isinstance(found, bytes) else None


def mark_offset(message: Message) -> int | None:
    """The offset that a mark's writer had read; None where it names none."""
    return _number(message, OFFSET_HEADER)


def _number(message: Message, header: str) -> int | None:
    content = _content(message, header)
    return int(content) if isinstance(content, bytes) and _DECIMAL.fullmatch(content) else None


def _content(message: Message, header: str) -> bytes | None:
    """What the header says; None where there is none, or more than one."""
    contents = [content for name, content in message.headers() or () if name == header]
    return contents[0] if len(contents) == 1 else None
