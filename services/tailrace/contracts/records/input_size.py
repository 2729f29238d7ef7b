"""How large a request, a label or an action may be, so that none is decoded that costs its reader too much memory.

The broker counts the bytes of a batch as they are sent, compressed: 60 MB of one letter are 6 KB of zstd to it.
"""

from __future__ import annotations

from tailrace.errors import BadRecord
from tailrace.streaming.records import Message

LARGEST = 1024 * 1024
"""Bytes of the value; what is not compressed cannot be larger, since its topic takes no larger batch."""
LARGEST_AROUND = 64 * 1024
"""Bytes of key and headers."""


def is_large(message: Message) -> bool:
    """Whether the value is larger than what is read; costs no copy of it."""
    return len(message) > LARGEST


def too_large(message: Message) -> BadRecord:
    """Why a record is refused whose value `is_large`."""
    return BadRecord("too-large", f"its value has {len(message):,} bytes; {LARGEST:,} are read at most")


def check_around(message: Message) -> None:
    """For who keeps keys and headers, or sends them on.

    Raises:
        BadRecord: ``too-large``.
    """
    size = len(message.key() or b"") + sum(len(n) + len(c or b"") for n, c in message.headers() or ())
    if size > LARGEST_AROUND:
        reason = f"its key and headers have {size:,} bytes; {LARGEST_AROUND:,} are read at most"
        raise BadRecord("too-large", reason)
