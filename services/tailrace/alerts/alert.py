"""The record of an alert, as every service makes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tailrace.contracts.state.alert_kinds import ALERT_KINDS
from tailrace.streaming.records import RecordRef


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
) -> dict[str, Any]:
    """An alert as schema ``alert.avsc`` has it.

    Args:
        kind: one of `ALERT_KINDS`, which says that the service raises it.
        alert_id: the same for the raising and the resolving record, and for the same thing said twice.
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
        "source": None if source is None else source._asdict(),
        "at": at,
    }
