"""Alerts of drift: raised by a report, lasting while reports go on saying so, resolved by a quiet one.

Only champions raise any: others answer nobody. What is open is memory between windows, so that an alert has one id
from the window that raised it to the one that resolves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tailrace.alerts.alert import open_alert_record
from tailrace.alerts.open_alerts import raise_or_renew
from tailrace.contracts.language.durations import format_duration
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import match_alert
from tailrace.contracts.records.record_types import AlertRecord
from tailrace.drift.judge import DRIFT, QUIET, DriftReport, DriftWindow
from tailrace.drift.segments import segment_names
from tailrace.streaming.ids import record_id

CHAMPION = "champion"
_MOST_NAMES = 5


class RaisedDriftAlerts(NamedTuple):
    """Alert records (schema ``alert.avsc``), and the alerts that are open after them."""

    records: list[AlertRecord]
    open: dict[str, Any]


def tell(
    window: DriftWindow, reports: Sequence[DriftReport], open_alerts: dict[str, Any]
) -> RaisedDriftAlerts:
    """What a window's reports come to, given the alerts that were open.

    An open alert is told again when its severity changes, or when it lasts and the contract's silence is over.
    """
    contract = window.applied.contract
    open_after = dict(open_alerts)
    records: list[AlertRecord] = []
    champions = [report for report in reports if report.subject.role == CHAMPION]
    for report in champions:
        key = f"{report.subject.version}/{report.subject.segment}"
        found = open_after.get(key)
        if report.verdict == DRIFT:
            severity = _severity(contract, report.drifted)
            told = raise_or_renew(
                open_after,
                key,
                _alert_id(window, report),
                severity,
                since=window.start,
                at=window.end,
                silence_ms=contract.alerts.silence_ms,
            )
            if told is not None:
                records.append(_raised(window, report, told))
        elif report.verdict == QUIET and found is not None:
            records.append(_resolved(window, key, open_after.pop(key), "the stream is quiet again"))
    answering = {report.subject.version for report in champions if report.record["rows"]}
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


def _alert_id(window: DriftWindow, report: DriftReport) -> str:
    subject = report.subject
    return record_id(
        "drift", window.model, subject.version, subject.segment, window.start, window.applied.digest
    )


def _raised(window: DriftWindow, report: DriftReport, alert: dict[str, Any]) -> AlertRecord:
    names = report.drifted
    named = ", ".join(names[:_MOST_NAMES]) + (
        f" and {len(names) - _MOST_NAMES} more" if names[_MOST_NAMES:] else ""
    )
    subject = report.subject
    within = f" where {subject.segment}" if subject.segment else ""
    length = format_duration(window.end - window.start)
    return open_alert_record(
        "drift",
        alert,
        service="drift",
        summary=f"Version {subject.version} of {window.model}{within} is asked or answers other things than in "
        f"training: {named} (window of {length}, {report.record['rows']:,} rows). Look at the window's report; if "
        "the world has changed, train a version on newer outcomes",
        model=window.model,
        version=subject.version,
        window=(window.start, window.end),
        detail={
            "features": ",".join(names),
            "segment": subject.segment,
            "report_id": report.record["report_id"],
        },
    )


def _resolved(window: DriftWindow, key: str, alert: dict[str, Any], why: str) -> AlertRecord:
    version, _, segment = key.partition("/")
    within = f" where {segment}" if segment else ""
    return open_alert_record(
        "drift",
        alert,
        service="drift",
        summary=f"The drift of version {version} of {window.model}{within} is over: {why}",
        model=window.model,
        version=int(version),
        resolved_at=window.end,
        window=(window.start, window.end),
        detail={"segment": segment},
    )
