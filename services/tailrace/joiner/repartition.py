"""Labels and actions on their way to the partition where their request is."""

from __future__ import annotations

import json
from typing import NamedTuple

from tailrace.errors import BadRecord
from tailrace.streaming.records import Message

HEADER = "tailrace-rekeyed"


def _is_number(value: object) -> bool:
    return type(value) is int and abs(value) < 2**62


class Origin(NamedTuple):
    """What a repartitioned record carries, in a header, of the message that it copies.

    Attributes:
        effective: the time from which it counts, by the stream time of the partition that it came to.
        key: that of the message, which may be any bytes or none.
    """

    topic: str
    partition: int
    offset: int
    appended: int
    effective: int
    late: bool
    key: bytes | None

    def header(self) -> tuple[str, bytes]:
        key = None if self.key is None else self.key.decode("latin-1")
        return HEADER, json.dumps([*self[:-1], key], separators=(",", ":")).encode()

    @classmethod
    def of(cls, message: Message) -> Origin:
        """Raises `BadRecord` (``corrupt``) where the message has no such header, or a broken one."""
        for name, content in message.headers() or ():
            if name == HEADER:
                try:
                    topic, partition, offset, appended, effective, late, key = json.loads(content)
                    key = None if key is None else key.encode("latin-1")
                except (ValueError, TypeError, AttributeError, RecursionError) as error:
                    raise BadRecord("corrupt", f"the header {HEADER} cannot be read: {error}") from error
                are_numbers = all(map(_is_number, (partition, offset, appended, effective)))
                if not isinstance(topic, str) or not isinstance(late, bool) or not are_numbers:
                    raise BadRecord("corrupt", f"the header {HEADER} does not say what it is to say")
                return cls(topic, partition, offset, appended, effective, late, key)
        raise BadRecord("corrupt", f"the message has no header {HEADER}")
