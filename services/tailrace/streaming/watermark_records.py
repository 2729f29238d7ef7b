"""Watermark records: passing time, written into the log, so that a silent partition differs from one that waits.

A watermark record has neither key nor value; a header carries an event time. It is written to each partition of a lane
that has been silent, and passed on in order by whoever derives a topic from it. It may be about one of several streams
that share a partition, and may say how far its writer had read its own input.
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


def watermark_record(
    topic: str, partition: int, event_time_ms: int, *, stream: str | None = None, offset: int | None = None
) -> Record:
    """The watermark record that brings the partition's stream time to ``event_time_ms``.

    Args:
        stream: which of the streams that share the partition it is about; None: all.
        offset: up to where, including, the writer had read the partition of the same number that it reads.
    """
    headers = [(HEADER, b"%d" % event_time_ms)]
    if stream is not None:
        headers.append((STREAM_HEADER, stream.encode()))
    if offset is not None:
        headers.append((OFFSET_HEADER, b"%d" % offset))
    return Record(topic, None, None, headers, partition)


def watermark_time(message: Message) -> int | None:
    """The event time of a watermark record in milliseconds; None where the message is none."""
    return _number(message, HEADER) if message.value() is None else None


def watermark_stream(message: Message) -> str | None:
    """The stream that a watermark record is about; None where it names none."""
    stream = _content(message, STREAM_HEADER)
    return stream.decode(errors="replace") if isinstance(stream, bytes) else None


def watermark_offset(message: Message) -> int | None:
    """The offset that its writer had read; None where it names none."""
    return _number(message, OFFSET_HEADER)


def _number(message: Message, header: str) -> int | None:
    content = _content(message, header)
    return int(content) if isinstance(content, bytes) and _DECIMAL.fullmatch(content) else None


def _content(message: Message, header: str) -> bytes | None:
    """The header's content; None where there is none, or more than one."""
    contents = [content for name, content in message.headers() or () if name == header]
    return contents[0] if len(contents) == 1 else None
