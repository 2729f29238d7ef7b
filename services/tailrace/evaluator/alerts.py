"""Alerts of quality: raised by a report whose verdict is a drop, lasting while reports say so, resolved by a good one.

Only champions raise any, on all their rows; in an experiment over all keys, on those that they answered as an arm.
A window is judged again at each age, and a younger window may be judged first: what counts is the latest window that
has a verdict, at its latest age. So a drop that is seen late, in a window older than one that was found good since,
raises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

from tailrace.alerts.alert import open_alert_record
from tailrace.alerts.open_alerts import raise_or_renew
from tailrace.contracts.language.durations import format_duration
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import match_alert
from tailrace.contracts.records.record_types import AlertRecord, PerformanceReportRecord
from tailrace.evaluator.counts import PerformanceCounts
from tailrace.evaluator.report import JudgedWindow, dropped
from tailrace.streaming.ids import record_id

KIND = "quality-drop"

Memory = dict[str, Any]
"""JSON: ``open`` alerts by version, start of the ``judged`` window that counts by version, and who ``answers``: the
versions that were champion in the latest window that was closed."""


class RaisedQualityAlerts(NamedTuple):
    """Alerts, and what is to be remembered."""

    records: list[AlertRecord]
    memory: Memory


def quality_alerts(
    window: JudgedWindow,
    reports: Sequence[PerformanceReportRecord],
    champions: Mapping[int, Mapping[str, PerformanceCounts]],
    memory: Memory,
) -> RaisedQualityAlerts:
    """What a window's reports come to, given who was champion in it, and what was remembered.

    An open alert is sent again when its severity changes, or when it lasts and the contract's silence is over.
    """
    roles = {version: next(iter(answered)) for version, answered in champions.items()}
    of_champions = [r for r in reports if not r["segment"] and roles.get(r["version"]) == r["role"]]
    open_alerts, judged = dict(memory.get("open", {})), dict(memory.get("judged", {}))
    answers = _answers(window, champions.keys(), memory.get("answers"))
    records: list[AlertRecord] = []
    for report in of_champions:
        version = str(report["version"])
        if report["verdict"] not in ("ok", "drop") or window.start < judged.get(version, window.start):
            continue
        judged[version] = window.start
        if report["verdict"] == "ok":
            if version in open_alerts:
                why = f"its window of {format_duration(window.end - window.start)} is as good as it was"
                records.append(_resolved(window, version, open_alerts.pop(version), why))
        elif report["version"] in answers["versions"]:
            records += _raise(window, report, open_alerts)
    for version in sorted(open_alerts, key=int):
        if int(version) not in answers["versions"]:
            why = "the version answers no more"
            records.append(_resolved(window, version, open_alerts.pop(version), why))
    kept = {version: start for version, start in judged.items() if int(version) in answers["versions"]}
    return RaisedQualityAlerts(records, {"open": open_alerts, "judged": kept, "answers": answers})


def _answers(window: JudgedWindow, versions: Set[int], known: dict[str, Any] | None) -> dict[str, Any]:
    if known is None or window.start > known["start"]:
        return {"start": window.start, "versions": sorted(versions)} if versions or known is None else known
    if window.start == known["start"]:  # under another contract, or at another age
        return {"start": window.start, "versions": sorted(versions | set(known["versions"]))}
    return known


def _raise(
    window: JudgedWindow, report: PerformanceReportRecord, open_alerts: dict[str, Any]
) -> list[AlertRecord]:
    version = str(report["version"])
    contract = window.contract
    fallen = [metric for metric in report["metrics"] if dropped(contract, metric)]
    severity = _severity(contract, [metric["metric"] for metric in fallen])
    alert_id = record_id(KIND, window.model, version, window.start, window.applied.digest)
    times = {"since": window.start, "at": window.judged_at, "silence_ms": contract.alerts.silence_ms}
    alert = raise_or_renew(open_alerts, version, alert_id, severity, **times)
    if alert is None:
        return []
    detail = {
        "metrics": ",".join(metric["metric"] for metric in fallen),
        **{metric["metric"]: repr(metric["value"]) for metric in fallen},
        **{f"{metric['metric']}_holdout": repr(metric["holdout"]) for metric in fallen},
        "labelled": str(report["labelled"]),
        "report_id": report["report_id"],
        **_all_rows(window),
    }
    why = "; ".join(report["reasons"])
    summary = (
        f"Version {version} of {window.model} is worse than it was on its holdout: {why} (window of "
        f"{format_duration(window.end - window.start)}, {report['labelled']:,} labelled). Look at the window's report; "
        "a version trained on newer outcomes may do better"
    )
    return [version_alert(window, KIND, version, alert, summary, detail)]


def _resolved(window: JudgedWindow, version: str, alert: dict[str, Any], why: str) -> AlertRecord:
    summary = f"The quality drop of version {version} of {window.model} is over: {why}"
    return version_alert(window, KIND, version, alert, summary, _all_rows(window), window.judged_at)


def _all_rows(window: JudgedWindow) -> dict[str, str]:
    return {"segment": "", "age": str(window.age_ms)}


def version_alert(
    window: JudgedWindow,
    kind: str,
    version: str,
    alert: dict[str, Any],
    summary: str,
    detail: dict[str, str],
    resolved_at: int | None = None,
) -> AlertRecord:
    """The record of an open alert of this kind about a version, as a window has it."""
    return open_alert_record(
        kind,
        alert,
        service="evaluator",
        summary=summary,
        model=window.model,
        version=int(version),
        resolved_at=resolved_at,
        window=(window.start, window.end),
        detail=detail,
    )


def _severity(contract: ModelContract, metrics: Sequence[str]) -> str:
    for phrase in contract.alerts.severe:
        pattern, places = match_alert(phrase) or ("", {})
        if pattern.startswith("quality drop") and places.get("metric") in (None, *metrics):
            return "severe"
    return "warning"
