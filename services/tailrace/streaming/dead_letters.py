"""What a dead letter looks like on its topic, both ways.

The value is the original bytes, cut to ``VALUE_LIMIT`` where longer (the SHA-256 of the whole is then in a header). The
key is the original key, cut likewise. The headers say what was wrong and where the message came from, beside the
original ones; these are left out from the one on that does not fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tailrace.streaming.records import DeadLetter, Message, Record, RecordRef

VALUE_LIMIT = 64 * 1024

_PREFIX = "tailrace-"
HEADERS = {
    "tailrace-code": "A stable word for machines.",
    "tailrace-reason": "A sentence for people.",
    "tailrace-field": "The field at fault, where there is one.",
    "tailrace-topic": "Where the message came from: topic,",
    "tailrace-partition": "partition",
    "tailrace-offset": "and offset, in decimal.",
    "tailrace-service": "Who could not process it.",
    "tailrace-sha256": "Digest (hex) of the whole value, where it was cut.",
}
"""What each header says."""


@dataclass(frozen=True)
class DeadLetterInfo:
    """What a dead letter says.

    Attributes:
        value: the original bytes, or their beginning where ``sha256`` (of the whole) is given.
        headers: those of the original message.
    """

    code: str
    reason: str
    field: str | None
    source: RecordRef
    service: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    sha256: str | None


def to_record(letter: DeadLetter, service: str) -> Record:
    """The record that carries ``letter``, written by ``service``."""
    message = letter.message
    facts = {
        "code": letter.code,
        "reason": letter.reason,
        "field": letter.field,
        "topic": message.topic(),
        "partition": str(message.partition()),
        "offset": str(message.offset()),
        "service": service,
    }
    value = message.value()
    if value is not None and len(value) > VALUE_LIMIT:
        facts["sha256"] = hashlib.sha256(value).hexdigest()
        value = value[:VALUE_LIMIT]
    headers = [(_PREFIX + name, fact.encode()) for name, fact in facts.items() if fact is not None]
    headers += _fitting([header for header in message.headers() or () if header[0] not in HEADERS])
    key = message.key()
    return Record(letter.topic, value, None if key is None else key[:VALUE_LIMIT], headers)


def _fitting(headers: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The first headers that have no more than ``VALUE_LIMIT`` bytes together."""
    sizes = accumulate(len(name.encode()) + len(content or b"") for name, content in headers)
    return [header for header, size in zip(headers, sizes, strict=True) if size <= VALUE_LIMIT]


def parse(message: Message) -> DeadLetterInfo:
    """Reads a message of a dead-letter topic.

    Raises:
        ValueError: it was not written by ``to_record``.
    """
    ref, headers = RecordRef.of(message), message.headers() or []
    own = [(name.removeprefix(_PREFIX), content) for name, content in headers if name in HEADERS]
    if any(content is None for _, content in own):  # which Kafka allows
        raise ValueError(f"{ref} is not a dead letter: a header says nothing")
    facts = {name: content.decode() for name, content in own}
    try:
        source = RecordRef(facts["topic"], int(facts["partition"]), int(facts["offset"]))
        if not (0 <= source.partition < 2**31 and 0 <= source.offset < 2**63):
            raise ValueError(f"{ref} is not a dead letter: it is of no record")
        return DeadLetterInfo(
            code=facts["code"],
            reason=facts["reason"],
            field=facts.get("field"),
            source=source,
            service=facts["service"],
            key=message.key(),
            value=message.value(),
            headers=[(name, content) for name, content in headers if name not in HEADERS],
            sha256=facts.get("sha256"),
        )
    except KeyError as missing:
        raise ValueError(f"{ref} is not a dead letter: no header {_PREFIX}{missing}") from None
