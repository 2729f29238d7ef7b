"""Records that nobody honest writes: garbage, and honest ones that were changed. Seeded; used by the fuzz of topics."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fastavro

from tailrace.avro.codec import HEADER, MAGIC, Codec
from tailrace.avro.strict_types import plain
from tailrace.errors import BadRecord
from tailrace.streaming import watermark_records as marks
from tailrace.streaming.records import Headers, Record

Headed = tuple[str, Any]

NUMBERS = (0, -1, 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 9_400_000_000_000_000)
"""The last is a time in the year 300000, in milliseconds."""
REALS = (float("nan"), float("inf"), float("-inf"), -0.0, 1e308, 5e-324, -1.0, 2.0)
TEXTS = (
    "",
    "\x00",
    "a/b/c",
    "../../etc",
    "credit",
    "x" * 20_000,
    "\ufffd\uffff",
    "null",
    "-1",
    "champion",
    "shadow",
)
BYTES = (b"", b"\x00", b"\xff" * 9, b"{}\n", b"[" * 5_000, b"\x01\x02" + bytes(24), b"x" * 20_000)
KEYS = (None, b"", b"\xff\xfe", b"k" * 20_000, b"credit", b"drift/credit", b"performance/credit/a/b/c/d")
JSON = (
    b"{}",
    b"{",
    b'{"a":' * 3_000,
    b'{"request_id": "r", "loan_id": "l", "income": 1e999, "defaulted": true}',
    b'{"request_id": 5, "loan_id": ["l"], "defaulted": "maybe"}',
    b'{"request_id": "r\\ud800", "loan_id": "l", "defaulted": true}',
    b'{"request_id": "r", "applied_at": 99999999999999999999999, "defaulted": true}',
    b'{"request_id": "\xff"}',
)


class Mutator:
    """Makes hostile records of honest ones.

    Args:
        seed: the same seed makes the same records of the same samples.
        codec: decodes samples.
        samples: honest records by topic.
    """

    def __init__(self, seed: int, codec: Codec, samples: Mapping[str, Sequence[Record]]) -> None:
        self._rng = random.Random(seed)
        self._codec = codec
        self._samples = {topic: list(records) for topic, records in samples.items() if records}
        self._all = [record for records in self._samples.values() for record in records if record.value]

    def record(self, topic: str, now_ms: int) -> Record:
        """A hostile record for the topic, to be appended at about ``now_ms``."""
        rng = self._rng
        honest = rng.choice(self._samples.get(topic) or self._all)
        if rng.random() < 0.15:
            return Record(topic, None, rng.choice((None, *KEYS)), self._mark(now_ms), self._partition())
        value = rng.choice(self._ways())(honest)
        key = rng.choice(KEYS) if rng.random() < 0.3 else honest.key
        headers = self._headers(honest.headers) if rng.random() < 0.4 else honest.headers
        return Record(topic, value, key, headers, self._partition())

    def _partition(self) -> int | None:
        return None if self._rng.random() < 0.7 else 0

    def _ways(self) -> Sequence[Callable[[Record], bytes | None]]:
        fields = self._fields
        return (self._garbage, self._cut, self._flipped, self._foreign, self._unknown, fields, fields, fields)

    def _garbage(self, honest: Record) -> bytes | None:
        rng = self._rng
        made = (None, b"", b"\x00", b"\x01", b"{", rng.randbytes(rng.randrange(200)), *JSON)
        return rng.choice(made)

    def _cut(self, honest: Record) -> bytes | None:
        value = honest.value or b""
        at = self._rng.randrange(len(value) + 1)
        return value[:at] if self._rng.random() < 0.7 else value + self._rng.randbytes(3)

    def _flipped(self, honest: Record) -> bytes | None:
        value = bytearray(honest.value or b"\x00")
        for _ in range(self._rng.choice((1, 1, 2, 8))):
            value[self._rng.randrange(len(value))] ^= 1 << self._rng.randrange(8)
        return bytes(value)

    def _foreign(self, honest: Record) -> bytes | None:
        """What belongs on another topic; or this record's body under another's schema."""
        other = self._rng.choice(self._all).value or b""
        return (
            other if self._rng.random() < 0.5 else other[: HEADER.size] + (honest.value or b"")[HEADER.size :]
        )

    def _unknown(self, honest: Record) -> bytes | None:
        schema_id = self._rng.choice((0, 999, 2**31 - 1, 2**32 - 1))
        return HEADER.pack(MAGIC, schema_id) + (honest.value or b"")[HEADER.size :]

    def _fields(self, honest: Record) -> bytes | None:
        """Valid Avro of the right schema, with values that nobody means."""
        value = honest.value or b""
        try:
            schema_id, record = self._codec.decode(value)
            schema: Any = plain(self._codec.writer_schema(schema_id))
        except BadRecord:
            return self._flipped(honest)
        for _ in range(self._rng.choice((1, 1, 1, 2, 4))):
            record = self._changed(record)
        buffer = io.BytesIO()
        buffer.write(HEADER.pack(MAGIC, schema_id))
        try:
            fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), record)
        except Exception:  # what does not fit the schema cannot be written
            return self._flipped(honest)
        return buffer.getvalue()

    def _changed(self, value: Any) -> Any:
        """The value with one leaf, or one array or map, changed."""
        rng = self._rng
        if isinstance(value, dict) and value and (rng.random() < 0.95):
            rich = [3 if isinstance(one, dict | list) and one else 1 for one in value.values()]
            (name,) = rng.choices(list(value), rich)
            return {**value, name: self._changed(value[name])}
        if isinstance(value, list) and value and rng.random() < 0.6:
            at = rng.randrange(len(value))
            return [*value[:at], self._changed(value[at]), *value[at + 1 :]]
        return self._other(value)

    def _other(self, value: Any) -> Any:
        rng = self._rng
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return rng.choice((*NUMBERS, value + rng.choice((-1, 1, 1000, -1000)), value * 1000))
        if isinstance(value, float):
            return rng.choice(REALS)
        if isinstance(value, str):
            return rng.choice((*TEXTS, value[: len(value) // 2], value + "x", value.upper(), None))
        if isinstance(value, bytes):
            cut = value[: rng.randrange(len(value) + 1)]
            return rng.choice((*BYTES, cut, value + b"\x00", self._flipped(Record("", value or b"\x00"))))
        if isinstance(value, list):
            return rng.choice(([], value * 3, value[:-1], list(reversed(value))))
        if isinstance(value, dict):
            return rng.choice(({}, {"x": next(iter(value.values()), 0.5)}, {"": 0.5}, {"x": "y"}))
        return rng.choice((0, 2**63 - 1, 0.5, "x", True))

    def _mark(self, now_ms: int) -> Headers:
        rng = self._rng
        ahead = rng.choice((-1_000, 0, 3_600_000, 86_400_000, 10**12, 2**61))
        times = (
            b"%d" % (now_ms + ahead),
            b"",
            b"abc",
            b"-1",
            b"9" * 25,
            b"\xff",
            b" 5 ",
            b"1_000",
            b"1" * 5_000,
            None,
        )
        headers: list[Headed] = [(marks.HEADER, rng.choice((times[0], times[0], rng.choice(times))))]
        if rng.random() < 0.5:
            streams = (
                b"predictions",
                b"shadow-predictions",
                b"labels/0",
                b"labels/1",
                b"actions/1",
                b"labels/77",
                b"\xff",
                b"",
                None,
            )
            headers.append((marks.STREAM_HEADER, rng.choice(streams)))
        if rng.random() < 0.3:
            headers.append((marks.OFFSET_HEADER, rng.choice((b"5", b"-5", b"9" * 18, b"x", None))))
        return self._headers(headers) if rng.random() < 0.3 else headers

    def _headers(self, honest: Headers) -> Headers:
        rng = self._rng
        names = [
            "tailrace-rekeyed",
            "tailrace-kind",
            "tailrace-topic",
            "tailrace-offset",
            marks.HEADER,
            "x",
            "é",
        ]
        contents = (b"", b"\xff", b"5", b"x" * 20_000, b"[1,2,3]", b"[" * 3_000, b"null", b"drift", None)
        more: list[Headed] = [
            (rng.choice(names), rng.choice(contents)) for _ in range(rng.choice((1, 2, 30)))
        ]
        forwarded = self._forwarded(honest)
        return rng.choice((more, [*honest, *more], [*more, *honest], [*honest, *honest], forwarded, ()))

    def _forwarded(self, honest: Headers) -> Headers:
        """The header of a forwarded label or action, with one of its parts changed."""
        changed: list[Headed] = []
        for name, content in honest:
            try:
                parts = json.loads(content)
            except (ValueError, TypeError, RecursionError):
                parts = None
            if isinstance(parts, list) and parts:
                at = self._rng.randrange(len(parts))
                parts[at] = self._rng.choice(
                    (None, "x", -1, 2**63, 2**80, 1.5, [], {}, "credit.labels", True)
                )
                content = json.dumps(parts).encode()
            changed.append((name, content))
        return changed
