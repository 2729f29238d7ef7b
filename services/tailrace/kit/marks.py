"""Marks: passing time, written into the log, so that silence in a partition can be told from waiting.

A mark is a record without key and value whose header carries an event time. It is written to each partition
of a lane that has been silent, and passed on in order by whoever derives a topic from it.
"""

from __future__ import annotations

from tailrace.kit.messages import Message, Record

HEADER = "tailrace-mark"


def mark(topic: str, partition: int, event_time_ms: int) -> Record:
    """The mark that says: what comes after in this partition is later than ``event_time_ms`` less the
    lateness.
    """
    return Record(topic, None, None, [(HEADER, str(event_time_ms).encode())], partition)


def mark_time(message: Message) -> int | None:
    """The event time of a mark in milliseconds; None where the message is no mark."""
    if message.value() is not None:
        return None
    for name, content in message.headers() or ():
        if name == HEADER:
            try:
                return int(content)
            except ValueError:
                return None
    return None
