"""From what an application has in hand to the records of a lane. Plain functions."""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from tailrace.client.errors import Rejected
from tailrace.client.facts import ModelFacts
from tailrace.errors import UsageError

Time = datetime.datetime | int | str


class Draft(NamedTuple):
    """A record before it is encoded, the text of its message key, and the request id that it is about."""

    record: dict[str, Any]
    key: str
    request_id: str


def to_ms(time: Time) -> int:
    """Milliseconds since 1970 of a datetime, ISO 8601 text (UTC where no zone is named) or milliseconds.

    Raises:
        UsageError: the text is no time.
    """
    if isinstance(time, str):
        try:
            time = datetime.datetime.fromisoformat(time)
        except ValueError:
            raise UsageError(f"{time!r} is no time: give ISO 8601, such as 2026-01-31T12:00:00Z") from None
    if isinstance(time, datetime.datetime):
        if time.tzinfo is None:
            time = time.replace(tzinfo=datetime.UTC)
        since = time - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return since // datetime.timedelta(milliseconds=1)
    return int(time)


def request(
    facts: ModelFacts,
    row: Mapping[str, Any],
    key: str | int | None = None,
    request_id: str | None = None,
    event_time: Time | None = None,
) -> Draft:
    """A request for a row of features and context, which may carry ids and event time by their names.

    Raises:
        Rejected: the row has a field that the contract does not know.
        UsageError: the row has no key, or a time that is none.
    """
    values = dict(row)
    given_id = values.pop("request_id", None)
    given_time = values.pop(facts.event_time, None)
    given_key = values.pop(facts.key, None) if facts.key != "request_id" else None
    values.pop("model", None)
    unknown = [name for name in values if name not in facts.fields]
    if unknown:
        names, known = ", ".join(unknown), ", ".join(facts.fields)
        reason = f"the contract of {facts.model} has no field {names}; it has {known}"
        raise Rejected("unknown-field", reason, unknown[0])
    draft = _ids(facts, given_key if key is None else key, given_id if request_id is None else request_id)
    when = given_time if event_time is None else event_time
    draft.record[facts.event_time] = None if when is None else to_ms(when)
    draft.record.update({name: _scalar(value) for name, value in values.items()})
    return draft


def label(
    facts: ModelFacts,
    value: Any,
    request_id: str | None = None,
    key: str | int | None = None,
    event_time: Time | None = None,
    by: str | None = None,
) -> Draft:
    """The label of one request, known at ``event_time`` (default: when the broker gets it).

    Raises:
        UsageError: no id that would say which request it is about, or a value that is none of the target's.
    """
    draft = _about(facts, request_id, key, event_time)
    draft.record[facts.target] = None if value is None else _target(facts, _scalar(value))
    draft.record["labelled_by"] = by
    return draft


def action(
    facts: ModelFacts,
    taken: str,
    request_id: str | None = None,
    key: str | int | None = None,
    event_time: Time | None = None,
    by: str | None = None,
) -> Draft:
    """What was really done about one request.

    Raises:
        UsageError: no id that would say which request it is about.
    """
    draft = _about(facts, request_id, key, event_time)
    draft.record["action"] = taken
    draft.record["by"] = by
    return draft


def _about(
    facts: ModelFacts, request_id: str | None, key: str | int | None, event_time: Time | None
) -> Draft:
    if facts.key == "request_id" and request_id is None and key is None:
        raise UsageError(f"say which request of {facts.model} it is about: request_id=")
    if facts.key != "request_id" and key is None:
        raise UsageError(f"records of {facts.model} are keyed by {facts.key}: give its value as key=")
    draft = _ids(facts, key, request_id, invent=False)
    draft.record[facts.event_time] = None if event_time is None else to_ms(event_time)
    return draft


def _ids(facts: ModelFacts, key: str | int | None, request_id: str | None, invent: bool = True) -> Draft:
    """The ids of a record; a request without an id gets a random one."""
    if facts.key == "request_id":
        request_id = str(key) if request_id is None and key is not None else request_id
    if request_id is None and invent:
        request_id = uuid.uuid4().hex
    record: dict[str, Any] = {"request_id": request_id, "model": facts.model}
    if facts.key == "request_id":
        return Draft(record, str(request_id), str(request_id))
    if key is None:
        raise UsageError(
            f"records of {facts.model} are keyed by {facts.key}: give its value in the row or as key="
        )
    try:
        record[facts.key] = int(key) if facts.key_type == "integer" else str(key)
    except ValueError:
        raise UsageError(f"the key {facts.key} of {facts.model} is an integer, not {key!r}") from None
    return Draft(record, str(record[facts.key]), "" if request_id is None else request_id)


def _scalar(value: Any) -> Any:
    """numpy's and pandas' scalars as Python's, so that they encode like what they stand for."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _target(facts: ModelFacts, value: Any) -> Any:
    if facts.target_type == "boolean":
        if value in (0, 1):  # True and False too
            return bool(value)
        raise UsageError(f"the target {facts.target} of {facts.model} is true or false, not {value!r}")
    if facts.target_type == "number":
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
        raise UsageError(f"the target {facts.target} of {facts.model} is a finite number, not {value!r}")
    return str(value)
