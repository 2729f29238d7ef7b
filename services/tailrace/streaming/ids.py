"""Identity of records: every derived record carries the reference of the one it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from tailrace.errors import BadRecord
from tailrace.streaming.records import RecordRef

REQUEST_ID = "request_id"


def record_id(*parts: object) -> str:
    """The id of a record that follows from these: 32 hex digits of SHA-256 of their texts, joined by ``|``.

    The same on every machine and after every restart, so what is written twice shows as one id twice.
    """
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]


def prediction_id(role: str, source: RecordRef, version: int) -> str:
    """``ROLE:TOPIC/PARTITION/OFFSET``: the id of the prediction that this role makes of the request there.

    The version is part of the role only in shadow, where several score one request: ``shadow-VERSION``.
    """
    return f"{id_role(role, version)}:{source}"


def outcome_id(prediction: str, cause: str) -> str:
    """The id of an outcome: its prediction's, and what led to this revision, by its reference, or ``horizon``."""
    return f"{prediction}|{cause}"


def id_role(role: str, version: int) -> str:
    """The role as it goes into a prediction's id."""
    return f"{role}-{version}" if role == "shadow" else role


def key_text(value: str | int) -> str:
    """Canonical text of a key: text as it is, integers in decimal."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRecord("wrong-type", f"a key is text or an integer, this is {type(value).__name__}")
    return value if isinstance(value, str) else str(int(value))


def request_id(record: Mapping[str, Any], source: RecordRef) -> str:
    """The request's own id, or its reference where it has none (or an empty one)."""
    return record.get(REQUEST_ID) or str(source)


def request_key(key_field: str, record: Mapping[str, Any], source: RecordRef) -> str:
    """The key of everything derived from this request: its key field's text, or its reference where it has none."""
    value = record.get(key_field)
    return str(source) if value is None or value == "" else key_text(value)


def truth_key(key_field: str, record: Mapping[str, Any]) -> str:
    """The key of a label or an action.

    Raises:
        BadRecord: ``missing-key``; without it there is no way to bring it to its request.
    """
    value = record.get(key_field)
    if value is None or value == "":
        reason = f"{key_field} says which request this is about, and it is missing"
        raise BadRecord("missing-key", reason, key_field)
    return key_text(value)
