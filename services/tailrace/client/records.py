"""From what an application has in hand to the records of a lane. Plain functions."""

from __future__ import annotations

import datetime
import math
import sys
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from tailrace.client.errors import Rejected
from tailrace.client.facts import ModelFacts
from tailrace.contracts import instants
from tailrace.contracts.records.json_values import integer
from tailrace.errors import BadRecord, UsageError

Time = datetime.datetime | datetime.date | int | str


_MOST = sys.float_info.max


class Draft(NamedTuple):
    """A record before it is encoded, the text of its message key, and the request id that it is about."""

    record: dict[str, Any]
    key: str
    request_id: str


def to_ms(time: Time) -> int:
    """Milliseconds since 1970 of a datetime (pandas' and numpy's too), of a date's midnight, of ISO 8601 text, or of
    milliseconds; UTC where no zone is named.

    Raises:
        UsageError: it is no time.
    """
    time = _scalar(time)
    try:
        if isinstance(time, str):
            return instants.read_time(time)
        if isinstance(time, datetime.datetime):
            return instants.milliseconds(time)
        if isinstance(time, datetime.date):
            return instants.milliseconds(datetime.datetime.combine(time, datetime.time()))
        return integer("the time", time)
    except (ValueError, BadRecord):
        raise UsageError(
            f"{time!r} is no time: give a datetime, ISO 8601 such as 2026-01-31T12:00:00Z, or whole milliseconds "
            "since 1970"
        ) from None


def request(
    facts: ModelFacts,
    row: Mapping[str, Any],
    key: str | int | None = None,
    request_id: str | None = None,
    event_time: Time | None = None,
) -> Draft:
    """A request for a row of features and context, which may carry ids and event time by their names.

    What pandas and numpy have for a missing value is missing here, but for a number's NaN: it goes as it is.

    Raises:
        Rejected: the row has a field that the contract does not know, no whole number for an integer, or an event time
            in seconds.
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
    draft.record[facts.event_time] = _event_time(facts, when)
    draft.record.update({name: _value(name, facts.fields[name], value) for name, value in values.items()})
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
        Rejected: an event time in seconds.
    """
    draft = _about(facts, request_id, key, event_time)
    draft.record[facts.target] = _target(facts, _scalar(value))
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
        UsageError: no id that would say which request it is about, or no action.
        Rejected: an event time in seconds.
    """
    if not taken:
        raise UsageError(f"say what was done about the request of {facts.model}, such as 'approve'")
    draft = _about(facts, request_id, key, event_time)
    draft.record["action"] = taken
    draft.record["by"] = by
    return draft


def _about(
    facts: ModelFacts, request_id: str | None, key: str | int | None, event_time: Time | None
) -> Draft:
    if not request_id and (facts.key != "request_id" or key is None):
        raise UsageError(f"say which request of {facts.model} it is about: request_id=")
    if facts.key != "request_id" and key is None:
        raise UsageError(f"records of {facts.model} are keyed by {facts.key}: give its value as key=")
    draft = _ids(facts, key, request_id, invent=False)
    draft.record[facts.event_time] = _event_time(facts, event_time)
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
    record[facts.key] = _key(facts, _scalar(key))
    return Draft(record, str(record[facts.key]), "" if request_id is None else request_id)


def _key(facts: ModelFacts, key: Any) -> int | str:
    if facts.key_type == "integer":
        try:
            return int(key) if isinstance(key, str) else integer(facts.key, key)
        except (ValueError, BadRecord):
            raise UsageError(f"the key {facts.key} of {facts.model} is an integer, not {key!r}") from None
    if isinstance(key, str) or type(key) is int:
        return str(key)
    raise UsageError(f"the key {facts.key} of {facts.model} is text, not {key!r}")


def _event_time(facts: ModelFacts, time: Any) -> int | None:
    if _scalar(time) is None:
        return None
    time_ms = to_ms(time)
    if not facts.early_1970 and instants.is_in_seconds(time_ms):
        raise Rejected(
            "event-time-in-seconds", instants.in_seconds(time_ms, facts.event_time), facts.event_time
        )
    return time_ms


def _value(name: str, kind: str, value: Any) -> Any:
    value = _scalar(value)
    if kind == "number" or value is None:
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    try:
        return integer(name, value) if kind == "integer" else value
    except BadRecord as bad:
        raise Rejected(bad.code, bad.reason, bad.field) from bad


def _scalar(value: Any) -> Any:
    """numpy's and pandas' scalars as Python's, so that they encode like what they stand for."""
    kind = type(value).__name__
    if kind in ("NAType", "NaTType"):
        return None
    if kind == "datetime64":
        return value.astype("datetime64[us]").item()  # of nanoseconds numpy's own way makes a number
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _target(facts: ModelFacts, value: Any) -> Any:
    if value is None:
        raise UsageError(
            f"a label of {facts.model} says what {facts.target} really was, and None says nothing: send none while it "
            "is not known"
        )
    if facts.target_type == "boolean":
        if value in (0, 1):  # True and False too
            return bool(value)
        raise UsageError(f"the target {facts.target} of {facts.model} is true or false, not {value!r}")
    if facts.target_type == "number":
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MOST:
            return float(value)
        raise UsageError(f"the target {facts.target} of {facts.model} is a finite number, not {value!r}")
    text = str(value)
    if text not in facts.target_categories:
        known = ", ".join(facts.target_categories)
        raise UsageError(f"the target {facts.target} of {facts.model} is one of {known}, not {value!r}")
    return text
