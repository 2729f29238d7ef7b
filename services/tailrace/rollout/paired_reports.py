"""The fold of reports: how versions on trial did beside the champion, and how much canaries answered, window by window.

Kept are the reports of versions that are or may come on trial, the latest age of each window; and how far judged event
time has come. The fold of a stretch of the topic that begins at ``needs`` is the same as that of the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tailrace.contracts.records.record_types import PairedMetricRecord, PerformanceReportRecord
from tailrace.models.rollout_state.rewards import Rewards
from tailrace.statistics.pooled_gain import PooledGain, pooled


class PairedWindow(NamedTuple):
    """What a report is about. Under a contract of its own, since predictions of one window may be of two."""

    version: int
    against: int
    segment: str
    start: int
    end: int
    contract_digest: str


class PairedReport(NamedTuple):
    """The latest report of a window. ``metrics`` are the paired ones, by name, as in the report."""

    offset: int
    report_id: str
    age: int
    mature: bool
    metrics: Mapping[str, PairedMetricRecord]


class Answering(NamedTuple):
    """What a report on a canary's own answers is about."""

    version: int
    start: int
    end: int
    contract_digest: str


class CanaryReport(NamedTuple):
    """The latest report on a canary's own answers in a window."""

    offset: int
    report_id: str
    age: int
    mature: bool
    labelled: int


@dataclass
class PairedReports:
    """The reports of one model.

    Attributes:
        windows: by what they are about, the latest of each.
        answered: the latest about each window of canaries' own answers.
        event_time: the latest time at which a window of the model was judged, in ms; None before the first.
        event_time_offset: the offset of the report that says so.
        rewards: what arms of an experiment earned.
    """

    windows: dict[PairedWindow, PairedReport] = field(default_factory=dict)
    event_time: int | None = None
    event_time_offset: int = 0
    answered: dict[Answering, CanaryReport] = field(default_factory=dict)
    rewards: Rewards = field(default_factory=Rewards)

    def apply(self, report: PerformanceReportRecord, offset: int) -> None:
        """Takes one report and its offset."""
        if self.event_time is None or report["judged_at"] > self.event_time:
            self.event_time, self.event_time_offset = report["judged_at"], offset
        self.rewards.apply(report, offset)
        if report["role"] == "canary":
            self._answered(report, offset)
        if report["role"] != "shadow" or report["against"] is None:
            return
        pair = report["version"], report["against"], report["segment"]
        window = PairedWindow(*pair, report["window_start"], report["window_end"], report["contract_digest"])
        known = self.windows.get(window)
        if known is None or report["age"] >= known.age:
            metrics = {metric["metric"]: metric for metric in report["paired"]}
            about = report["report_id"], report["age"], report["mature"]
            self.windows[window] = PairedReport(offset, *about, metrics)

    def _answered(self, report: PerformanceReportRecord, offset: int) -> None:
        if report["segment"] or report["against"] is not None:
            return
        times = report["window_start"], report["window_end"]
        window = Answering(report["version"], *times, report["contract_digest"])
        known = self.answered.get(window)
        if known is None or report["age"] >= known.age:
            about = report["report_id"], report["age"], report["mature"]
            self.answered[window] = CanaryReport(offset, *about, report["labelled"])

    def forget(self, versions: Collection[int]) -> None:
        """Lets go of what is about these versions, which will not be on trial again."""
        self.windows = {w: report for w, report in self.windows.items() if w.version not in versions}
        self.answered = {w: report for w, report in self.answered.items() if w.version not in versions}

    def copy(self) -> PairedReports:
        windows, answered, rewards = dict(self.windows), dict(self.answered), self.rewards.copy()
        return replace(self, windows=windows, answered=answered, rewards=rewards)

    def needs(self) -> int:
        """The first offset from which this can be folded again, once something was."""
        kept = (self.windows.values(), self.answered.values(), self.rewards.reports.values())
        return min([self.event_time_offset, *(report.offset for reports in kept for report in reports)])

    def of_trial(self, version: int, against: int) -> dict[PairedWindow, PairedReport]:
        """The mature reports of a version beside a champion, of windows that began after its shadow did.

        The first window in which it was seen is the one in which its shadow began.
        """
        first = min((window.start for window in self.windows if window.version == version), default=0)
        beside = [w for w in sorted(self.windows) if (w.version, w.against) == (version, against)]
        return {w: self.windows[w] for w in beside if w.start > first and self.windows[w].mature}

    def of_step(self, version: int, since: int | None) -> list[CanaryReport]:
        """The mature reports on a canary's own answers, of windows that began after its step was taken."""
        return [
            report
            for window, report in sorted(self.answered.items())
            if window.version == version and report.mature and (since is None or window.start > since)
        ]


def of_segment(
    reports: Mapping[PairedWindow, PairedReport], segment: str, metric: str
) -> tuple[Sequence[PairedReport], PooledGain | None]:
    """The reports of a segment that have the metric, and what they come to together."""
    own = [r for window, r in reports.items() if window.segment == segment and metric in r.metrics]
    return own, pooled(report.metrics[metric] for report in own)
