"""The record of an alert, as every service makes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tailrace.contracts.records.record_types import AlertRecord, SourceRecord
from tailrace.contracts.state.alert_kinds import ALERT_KINDS
from tailrace.streaming.ids import record_id
from tailrace.streaming.records import Message, RecordRef


def source_record(ref: RecordRef) -> SourceRecord:
    """The place of a record, as records that come of it have it."""
    return {"topic": ref.topic, "partition": ref.partition, "offset": ref.offset}


def alert_record(
    kind: str,
    alert_id: str,
    *,
    service: str,
    severity: str,
    summary: str,
    at: int,
    model: str | None,
    version: int | None = None,
    state: Literal["raised", "resolved"] = "raised",
    detail: Mapping[str, str] | None = None,
    source: RecordRef | None = None,
) -> AlertRecord:
    """An alert as schema ``alert.avsc`` has it.

    Args:
        kind: one of `ALERT_KINDS`, which says that the service raises it.
        alert_id: the same for the raising and the resolving record, and where it is sent again.
        summary: a sentence for people, with what to do next.
        at: the event time of what it is about, in ms.
        source: the record that it is about, where there is one.
    """
    assert service in ALERT_KINDS[kind].services, f"{service} raises no alert {kind}"
    return {
        "alert_id": alert_id,
        "state": state,
        "kind": kind,
        "severity": severity,
        "model": model,
        "version": version,
        "service": service,
        "summary": summary,
        "detail": dict(detail or {}),
        "source": None if source is None else source_record(source),
        "at": at,
    }


def open_alert_record(
    kind: str,
    alert: Mapping[str, Any],
    *,
    service: str,
    summary: str,
    model: str,
    version: int | None = None,
    resolved_at: int | None = None,
    window: tuple[int, int] | None = None,
    detail: Mapping[str, str] | None = None,
    source: RecordRef | None = None,
) -> AlertRecord:
    """The record of an alert as `open_alerts` has it: raised, or resolved at ``resolved_at``.

    Args:
        window: start and end of the window that says so. The detail names both, and since when the alert is open.
    """
    details = dict(detail or {})
    if window is not None:
        start, end = window
        details |= {"since": str(alert["since"]), "window_start": str(start), "window_end": str(end)}
    return alert_record(
        kind,
        alert["id"],
        service=service,
        severity=alert["severity"],
        summary=summary,
        at=alert["at"] if resolved_at is None else resolved_at,
        model=model,
        version=version,
        state="raised" if resolved_at is None else "resolved",
        detail=details,
        source=source,
    )


def quarantine_alert(service: str, message: Message, summary: str, reason: str) -> AlertRecord:
    """A service has left out a record that it cannot process; the same alert each time that it says so."""
    source = RecordRef.of(message)
    return alert_record(
        "quarantined",
        record_id("quarantined", service, source),
        service=service,
        severity="severe",
        summary=summary,
        at=message.timestamp()[1],
        model=None,
        detail={"reason": reason},
        source=source,
    )
