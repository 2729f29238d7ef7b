"""Accuracy with and without the loop, from the evaluator's reports alone. Pure.

Accuracy is the share of requests whose predicted class was the true one, as in ``sklearn.metrics.accuracy_score``.
Only mature reports count, and of each window the oldest: what was known last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tailrace.contracts.records.record_types import PerformanceReportRecord as Report


class Share(NamedTuple):
    """An accuracy and the number of outcomes that it rests on; ``value`` is None without any."""

    value: float | None
    n: int


class Point(NamedTuple):
    """One window: how right the versions that answered were, and how right one version was in shadow."""

    window_start: int
    answered: Share
    shadow: Share


def latest(reports: Iterable[Report]) -> list[Report]:
    """Of each window, version, role and version compared with the mature report of the greatest age, over all
    rows rather than a slice, in order of windows."""
    oldest: dict[tuple[int, str, int, int], Report] = {}
    for report in reports:
        if not report["segment"] and report["mature"]:
            key = report["window_start"], report["role"], report["version"], report["against"] or 0
            if key not in oldest or oldest[key]["age"] < report["age"]:
                oldest[key] = report
    return [oldest[key] for key in sorted(oldest)]


def pooled(shares: Iterable[Share]) -> Share:
    """The accuracy over all outcomes of several."""
    shares = [share for share in shares if share.value is not None and share.n]
    n = sum(share.n for share in shares)
    return Share(sum((share.value or 0.0) * share.n for share in shares) / n if n else None, n)


def own(report: Report) -> Share:
    """A version's accuracy in a report about it alone."""
    shares = (Share(m["value"], m["n"]) for m in report["metrics"] if m["metric"] == "accuracy")
    return next(shares, Share(None, 0))


def answered(reports: Iterable[Report], version: int, start_ms: int, end_ms: int) -> Share:
    """A champion's accuracy over the windows that lie within a time."""
    return pooled(
        own(r)
        for r in latest(reports)
        if r["role"] == "champion"
        and r["version"] == version
        and r["against"] is None
        and start_ms <= r["window_start"]
        and r["window_end"] <= end_ms
    )


def on_the_same_requests(reports: Iterable[Report], shadow: int, champions: set[int]) -> tuple[Share, Share]:
    """Of a version in shadow and of those that answered, on the requests that both scored."""
    mine, theirs = [], []
    for report in latest(reports):
        if report["role"] != "shadow" or report["version"] != shadow or report["against"] not in champions:
            continue
        for paired in report["paired"]:
            if paired["metric"] == "accuracy":
                mine.append(Share(paired["version_value"], paired["n"]))
                theirs.append(Share(paired["against_value"], paired["n"]))
    return pooled(mine), pooled(theirs)


def line(reports: Iterable[Report], shadow: int) -> list[Point]:
    """One point per window, in order of time."""
    chosen = [r for r in latest(reports) if r["against"] is None]
    return [
        Point(
            start,
            pooled(own(r) for r in chosen if r["window_start"] == start and r["role"] == "champion"),
            pooled(
                own(r)
                for r in chosen
                if r["window_start"] == start and r["role"] == "shadow" and r["version"] == shadow
            ),
        )
        for start in sorted({r["window_start"] for r in chosen})
    ]
