"""Requests to the model ``credit`` that cannot be answered, and what their dead letters have to say."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import fastavro

Schema = dict[str, Any]
_DAY_MS = 86_400_000


class Poison(NamedTuple):
    """The bytes of a request, and the code and field of what is wrong with them."""

    value: bytes | None
    code: str
    field: str | None = None


def loan(**changed: Any) -> dict[str, Any]:
    """A request that is in order, changed."""
    return {
        "request_id": "poison",
        "loan_id": "L1",
        "applied_at": 1_700_000_000_000,
        "income": 30_000.0,
        "debt_ratio": 0.5,
        "age": 40,
        "purpose": "car",
        "amount": 10_000.0,
        "region": "north",
        "sex": "f",
    } | changed


def poisons(schema_id: int, schema: Schema, other_id: int) -> Iterator[Poison]:
    """One of each kind.

    Args:
        schema_id, schema: those of a request.
        other_id: of the schema of another topic, which makes no request.
    """

    def avro(**changed: Any) -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, schema, loan(**changed))
        return b"\0" + schema_id.to_bytes(4, "big") + body.getvalue()

    def text(**changed: Any) -> bytes:
        return json.dumps(loan(**changed)).encode()

    good = avro()
    yield Poison(None, "empty")
    yield Poison(b"\x07" + good[1:], "wrong-magic")
    yield Poison(good[:3], "truncated")
    yield Poison(good[:-3], "truncated")
    yield Poison(good + b"more", "trailing-bytes")
    yield Poison(good[:5] + b"\x7e" + good[6:], "corrupt")
    yield Poison(good[:1] + (999_999).to_bytes(4, "big") + good[5:], "unknown-schema")
    yield Poison(good[:1] + other_id.to_bytes(4, "big") + good[5:], "incompatible-schema")
    yield Poison(avro(debt_ratio=None), "missing", "debt_ratio")
    yield Poison(avro(debt_ratio=float("nan")), "not-finite", "debt_ratio")
    yield Poison(avro(debt_ratio=float("inf")), "not-finite", "debt_ratio")
    yield Poison(avro(age=17), "out-of-range", "age")
    yield Poison(avro(region="nowhere"), "unseen-category", "region")
    yield Poison(avro(income=0.0), "rule", "debt-needs-income")
    yield Poison(avro(applied_at=int(time.time() * 1000) + _DAY_MS), "event-time-ahead", "applied_at")
    yield Poison(text(income="much"), "wrong-type", "income")
    yield Poison(text(age=True), "wrong-type", "age")
    yield Poison(text(colour="red"), "unknown-field", "colour")
    yield Poison(text()[:-5], "not-json")
    yield Poison(text().replace(b"car", b"\xff"), "not-unicode")
