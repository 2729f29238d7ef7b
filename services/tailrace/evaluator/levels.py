"""Alerts of service: the fallback answered more of a window's requests than the contract bears, or answers took longer
than its latency level.

Judged once, when a window has closed, of all that the champion answered, as an arm of an experiment too. A share is
more than a level only if that is no chance (exact binomial test), so that one of few raises nothing; an alert lasts
until a window is within the level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tailrace.alerts.open_alerts import OpenAlerts, raise_or_renew
from tailrace.contracts.language.durations import format_duration, parse_share
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import match_alert
from tailrace.contracts.records.record_types import AlertRecord
from tailrace.evaluator.alerts import version_alert
from tailrace.evaluator.counts import PerformanceCounts
from tailrace.evaluator.report import JudgedWindow
from tailrace.statistics.binomial import is_more
from tailrace.streaming.ids import record_id

FALLBACK, LATENCY = "fallback-share", "latency-level"
SLOWEST = 0.01
"""The share of answers that may take longer than ``service_levels.latency_p99``."""


class ServiceLevel(NamedTuple):
    """A share that is borne, and how severe it is if it is passed."""

    most: float
    severity: str


def missed_levels(
    window: JudgedWindow, champions: Mapping[int, Mapping[str, PerformanceCounts]], open_alerts: OpenAlerts
) -> list[AlertRecord]:
    """What a window says of the levels, as alerts. Changes ``open_alerts``."""
    records: list[AlertRecord] = []
    for version, answered in champions.items():
        asked, fallbacks, slow = (
            sum(counts.tallies[name] for counts in answered.values())
            for name in ("predictions", "fallbacks", "slow")
        )
        for kind, levels, count in (
            (FALLBACK, fallback_levels(window.contract), fallbacks),
            (LATENCY, latency_levels(window.contract), slow),
        ):
            records += _judge(window, f"{kind}/{version}", levels, count, asked, open_alerts)
    for key in sorted(open_alerts) if champions else ():
        if int(key.rpartition("/")[2]) not in champions:
            records.append(_resolved(window, key, open_alerts.pop(key), "the version answers no more"))
    return records


def fallback_levels(contract: ModelContract) -> list[ServiceLevel]:
    """The severe first: of ``alerts.severe``, ``rollout.back_if``, and what ``service_levels.answered`` leaves."""
    severe = [
        ServiceLevel(parse_share(places["share"]), "severe")
        for phrase in contract.alerts.severe
        for pattern, places in [match_alert(phrase) or ("", {})]
        if pattern.startswith("fallback share")
    ]
    borne = [contract.rollout.back_if.fallback_share]
    if contract.service_levels.answered is not None:
        borne.append(1 - contract.service_levels.answered)
    return [*severe, *(ServiceLevel(share, "warning") for share in borne if share is not None)]


def latency_levels(contract: ModelContract) -> list[ServiceLevel]:
    return [] if contract.service_levels.latency_p99_ms is None else [ServiceLevel(SLOWEST, "warning")]


def _judge(
    window: JudgedWindow,
    key: str,
    levels: list[ServiceLevel],
    count: int,
    asked: int,
    open_alerts: OpenAlerts,
) -> list[AlertRecord]:
    passed = [level for level in levels if is_more(count, asked, level.most)]
    if not passed:
        if key in open_alerts and all(count <= level.most * asked for level in levels):
            return [_resolved(window, key, open_alerts.pop(key), "the window is within the level")]
        return []
    alert_id = record_id(key, window.model, window.start, window.applied.digest)
    times = {"since": window.start, "at": window.end, "silence_ms": window.contract.alerts.silence_ms}
    alert = raise_or_renew(open_alerts, key, alert_id, passed[0].severity, **times)
    if alert is None:
        return []
    kind, _, version = key.partition("/")
    latency = format_duration(window.contract.service_levels.latency_p99_ms or 0)
    what = {
        FALLBACK: f"left {count:,} of {asked:,} requests to the fallback",
        LATENCY: f"took longer than {latency} for {count:,} of {asked:,} answers",
    }
    most = passed[0].most
    summary = (
        f"Version {version} of {window.model} {what[kind]} in a window of "
        f"{format_duration(window.end - window.start)}: more than {most:.4g} of them. See why with "
        f"`tailrace tail {window.contract.lane}.predictions`"
    )
    detail = {"found": str(count), "predictions": str(asked), "level": repr(most)}
    return [version_alert(window, kind, version, alert, summary, detail)]


def _resolved(window: JudgedWindow, key: str, alert: dict[str, Any], why: str) -> AlertRecord:
    kind, _, version = key.partition("/")
    summary = f"The {kind.replace('-', ' ')} of version {version} of {window.model} is well again: {why}"
    return version_alert(window, kind, version, alert, summary, {}, window.end)
