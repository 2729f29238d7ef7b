"""Tells a copy of a signed record from the record itself.

Alerts and reports follow nothing: whoever can write to their topics could write a copy of one again, signature and
all. Of records that are the same to the byte, the first counts.
"""

from __future__ import annotations

import hashlib

from tailrace.signing.canonical import framed
from tailrace.signing.records import HEADER
from tailrace.streaming.records import Message, RecordRef


class Copies:
    """What was on some topics, as a digest for each record: 16 bytes of key, value and signature."""

    def __init__(self) -> None:
        self._first: dict[bytes, RecordRef] = {}

    def note(self, message: Message) -> RecordRef:
        """Takes a message in; returns where the same record stood first, which may be here."""
        digest, here = _digest(message), RecordRef.of(message)
        first = self._first.setdefault(digest, here)
        if first[:2] == here[:2] and here.offset < first.offset:
            first = self._first[digest] = here
        return first

    def is_copy(self, message: Message) -> bool:
        """Whether the same record stood before this one; takes the message in. The same message may come again."""
        return self.note(message) != RecordRef.of(message)


def _digest(message: Message) -> bytes:
    signature = dict(message.headers() or ()).get(HEADER)
    parts = framed("tailrace-copy", message.topic().encode(), message.key(), message.value(), signature)
    return hashlib.blake2b(parts, digest_size=16).digest()
