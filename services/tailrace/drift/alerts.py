"""Alerts of drift: raised by a report, lasting while reports go on saying so, resolved by a quiet one.

Only champions raise any: others answer nobody. What is open is memory between windows, so that an alert has one id
from the window that raised it to the one that resolves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tailrace.alerts.alert import open_alert_record
from tailrace.alerts.open_alerts import OpenAlerts, raise_or_renew
from tailrace.contracts.language.durations import format_duration
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import match_alert
from tailrace.contracts.records.record_types import AlertRecord, DriftReportRecord
from tailrace.drift.judge import DRIFT, QUIET, DriftWindow, drifted_features
from tailrace.drift.segments import segment_names
from tailrace.streaming.ids import record_id

CHAMPION = "champion"
_MOST_NAMES = 5


class RaisedDriftAlerts(NamedTuple):
    """Alerts, and those that are open after them."""

    records: list[AlertRecord]
    open: OpenAlerts


def drift_alerts(
    window: DriftWindow, reports: Sequence[DriftReportRecord], open_alerts: OpenAlerts
) -> RaisedDriftAlerts:
    """What a window's reports come to, given the alerts that were open.

    An open alert is sent again when its severity changes, or when it lasts and the contract's silence is over.
    """
    contract = window.applied.contract
    open_after = dict(open_alerts)
    times = {"since": window.start, "at": window.end, "silence_ms": contract.alerts.silence_ms}
    records: list[AlertRecord] = []
    champions = [report for report in reports if report["role"] == CHAMPION]
    for report in champions:
        about = report["version"], report["segment"]
        key = "/".join(map(str, about))
        if report["verdict"] == DRIFT:
            alert_id = record_id("drift", window.model, *about, window.start, window.applied.digest)
            severity = _severity(contract, drifted_features(report))
            alert = raise_or_renew(open_after, key, alert_id, severity, **times)
            if alert is not None:
                records.append(_raised(window, report, alert))
        elif report["verdict"] == QUIET and key in open_after:
            records.append(_resolved(window, key, open_after.pop(key), "the stream is quiet again"))
    answering = {report["version"] for report in champions if report["rows"]}
    segments = set(segment_names(contract))
    for key in sorted(open_after):
        version, _, segment = key.partition("/")
        if answering and int(version) not in answering:
            records.append(_resolved(window, key, open_after.pop(key), "the version answers no more"))
        elif segment not in segments:
            why = "the contract does not judge this segment any more"
            records.append(_resolved(window, key, open_after.pop(key), why))
    return RaisedDriftAlerts(records, open_after)


def _severity(contract: ModelContract, drifted: Iterable[str]) -> str:
    for phrase in contract.alerts.severe:
        pattern, places = match_alert(phrase) or ("", {})
        if pattern == "drift" or places.get("field") in set(drifted):
            return "severe"
    return "warning"


def _raised(window: DriftWindow, report: DriftReportRecord, alert: dict[str, Any]) -> AlertRecord:
    names, segment = drifted_features(report), report["segment"]
    more = f" and {len(names) - _MOST_NAMES} more" if names[_MOST_NAMES:] else ""
    summary = (
        f"{_whose('Version', window, report['version'], segment)} is asked or answers other things than in training: "
        f"{', '.join(names[:_MOST_NAMES])}{more} (window of {format_duration(window.end - window.start)}, "
        f"{report['rows']:,} rows). Look at the window's report; if the world has changed, train a version on newer "
        "outcomes"
    )
    detail = {"features": ",".join(names), "segment": segment, "report_id": report["report_id"]}
    return _alert(window, report["version"], alert, summary, detail)


def _resolved(window: DriftWindow, key: str, alert: dict[str, Any], why: str) -> AlertRecord:
    version, _, segment = key.partition("/")
    summary = f"The drift of {_whose('version', window, int(version), segment)} is over: {why}"
    return _alert(window, int(version), alert, summary, {"segment": segment}, window.end)


def _whose(noun: str, window: DriftWindow, version: int, segment: str) -> str:
    return f"{noun} {version} of {window.model}" + (f" where {segment}" if segment else "")


def _alert(
    window: DriftWindow,
    version: int,
    alert: dict[str, Any],
    summary: str,
    detail: dict[str, str],
    resolved_at: int | None = None,
) -> AlertRecord:
    return open_alert_record(
        "drift",
        alert,
        service="drift",
        summary=summary,
        model=window.model,
        version=version,
        resolved_at=resolved_at,
        window=(window.start, window.end),
        detail=detail,
    )
