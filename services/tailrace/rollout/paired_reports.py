"""The fold of reports: how versions on trial did beside the champion, and how much canaries answered, window by window.

Kept are the reports of versions that are or may come on trial, the latest age of each window; and how far judged event
time has come. The fold of a stretch of the topic that begins at ``needs`` is the same as that of the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
    judged_at: int
    mature: bool
    metrics: Mapping[str, Mapping[str, Any]]


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

    def apply(self, report: Mapping[str, Any], offset: int) -> None:
        """Takes one decoded record (schema ``performance_report.avsc``) and its offset."""
        if self.event_time is None or report["judged_at"] > self.event_time:
            self.event_time, self.event_time_offset = report["judged_at"], offset
        self.rewards.apply(report, offset)
        if report["role"] == "canary":
            self._answered(report, offset)
        if report["role"] != "shadow" or report["against"] is None:
            return
        window = PairedWindow(
            report["version"],
            report["against"],
            report["segment"],
            report["window_start"],
            report["window_end"],
            report["contract_digest"],
        )
        known = self.windows.get(window)
        if known is None or report["age"] >= known.age:
            self.windows[window] = PairedReport(
                offset,
                report["report_id"],
                report["age"],
                report["judged_at"],
                report["mature"],
                {metric["metric"]: metric for metric in report["paired"]},
            )

    def _answered(self, report: Mapping[str, Any], offset: int) -> None:
        if report["segment"] or report["against"] is not None:
            return
        about = Answering(
            *(report[name] for name in ("version", "window_start", "window_end", "contract_digest"))
        )
        known = self.answered.get(about)
        if known is None or report["age"] >= known.age:
            self.answered[about] = CanaryReport(
                offset, report["report_id"], report["age"], report["mature"], report["labelled"]
            )

    def forget(self, versions: Collection[int]) -> None:
        """Lets go of what is about these versions, which will not be on trial again."""
        if any(window.version in versions for window in self.windows):
            self.windows = {w: judged for w, judged in self.windows.items() if w.version not in versions}
        if any(about.version in versions for about in self.answered):
            self.answered = {a: found for a, found in self.answered.items() if a.version not in versions}

    def copy(self) -> PairedReports:
        return PairedReports(
            dict(self.windows),
            self.event_time,
            self.event_time_offset,
            dict(self.answered),
            self.rewards.copy(),
        )

    def needs(self) -> int:
        """The first offset from which this can be folded again, once something was."""
        kept = (self.windows.values(), self.answered.values(), self.rewards.reports.values())
        return min([self.event_time_offset, *(each.offset for some in kept for each in some)])

    def of_trial(self, version: int, against: int) -> dict[PairedWindow, PairedReport]:
        """The mature reports of a version beside a champion, of windows that began after its shadow did.

        The first window in which it was seen is the one in which its shadow began.
        """
        starts = [window.start for window in self.windows if window.version == version]
        first = min(starts, default=0)
        return {
            window: judged
            for window, judged in sorted(self.windows.items())
            if window.version == version
            and window.against == against
            and window.start > first
            and judged.mature
        }

    def of_step(self, version: int, since: int | None) -> list[CanaryReport]:
        """The mature reports on a canary's own answers, of windows that began after its step was taken."""
        return [
            found
            for about, found in sorted(self.answered.items())
            if about.version == version and found.mature and (since is None or about.start > since)
        ]


def of_segment(
    reports: Mapping[PairedWindow, PairedReport], segment: str, metric: str
) -> tuple[Sequence[PairedReport], PooledGain | None]:
    """The reports of a segment that have the metric, and what they come to together."""
    found = [judged for window, judged in reports.items() if window.segment == segment]
    found = [judged for judged in found if metric in judged.metrics]
    return found, pooled(judged.metrics[metric] for judged in found)
