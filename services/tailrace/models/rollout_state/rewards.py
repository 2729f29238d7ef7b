"""What the arms of an experiment earned: a fold of the performance reports about them, window by window.

The share of an arm changes from window to window, and so may what a request is worth. So each window is looked at by
itself: its requests are weighed by one over the share of them that went to the arm, and every arm is judged over the
same requests. A window counts once all arms have a mature report on it, at the latest age at which they have.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple

from tailrace.contracts.records.record_types import PerformanceReportRecord

_Z = NormalDist().inv_cdf(0.975)


class RewardWindow(NamedTuple):
    """Under a contract of its own, since predictions of one window may be of two."""

    start: int
    end: int
    contract_digest: str


class ReportSubject(NamedTuple):
    """What a report is about."""

    window: RewardWindow
    age: int
    version: int


class Earned(NamedTuple):
    """What a report says: what has no label yet, or never will, is worth nothing."""

    offset: int
    mature: bool
    requests: int
    labelled: int
    total: float
    squares: float


class Worth(NamedTuple):
    """What a request is worth when an arm answers it, as far as is known: normal, with this mean and deviation."""

    requests: int
    labelled: int
    windows: int
    mean: float
    deviation: float

    @property
    def interval(self) -> tuple[float, float]:
        """Holds the mean with 95 % probability."""
        return self.mean - _Z * self.deviation, self.mean + _Z * self.deviation


@dataclass
class Rewards:
    """The reports on arms of one model."""

    reports: dict[ReportSubject, Earned] = field(default_factory=dict)

    def apply(self, report: PerformanceReportRecord, offset: int) -> None:
        """Takes one decoded record (schema ``performance_report.avsc``) and its offset."""
        if report["role"] != "arm" or report["segment"] or report["against"] is not None:
            return
        if report["value_total"] is None or report["value_squares"] is None:
            return
        window = RewardWindow(report["window_start"], report["window_end"], report["contract_digest"])
        requests, labelled, total = report["predictions"], report["labelled"], report["value_total"]
        earned = Earned(offset, report["mature"], requests, labelled, total, report["value_squares"])
        self.reports[ReportSubject(window, report["age"], report["version"])] = earned

    def keep(self, versions: Collection[int]) -> None:
        """Lets go of what is about others."""
        if any(subject.version not in versions for subject in self.reports):
            self.reports = {subject: e for subject, e in self.reports.items() if subject.version in versions}

    def copy(self) -> Rewards:
        return Rewards(dict(self.reports))

    def worth(self, versions: Sequence[int], since: int | None) -> list[Worth] | None:
        """What each of these arms is worth, by windows that began after ``since``; None where there are none.

        Within a window the mean over an arm's requests; over windows their average, weighed by all arms' requests.
        The variance of what a request is worth is an arm's own, taken for the same in all windows.
        """
        windows = [by for window, by in self._windows(versions) if since is None or window.start > since]
        if not windows:
            return None
        sizes = [sum(earned.requests for earned in by.values()) for by in windows]
        weights = [size / sum(sizes) for size in sizes]
        worths = []
        for version in versions:
            mine = [by[version] for by in windows]
            mean = math.fsum(w * e.total / e.requests for w, e in zip(weights, mine, strict=True))
            squares = math.fsum(max(0.0, e.squares - e.total / e.requests * e.total) for e in mine)
            variance = squares / sum(e.requests - 1 for e in mine)
            spread = math.fsum(w * w / e.requests for w, e in zip(weights, mine, strict=True))
            deviation = math.sqrt(variance * spread)
            requests, labelled = sum(e.requests for e in mine), sum(e.labelled for e in mine)
            worths.append(Worth(requests, labelled, len(mine), mean, deviation))
        return worths

    def _windows(self, versions: Sequence[int]) -> list[tuple[RewardWindow, dict[int, Earned]]]:
        """The windows that count, with what each arm earned."""
        seen: dict[RewardWindow, dict[int, dict[int, Earned]]] = defaultdict(lambda: defaultdict(dict))
        for subject, earned in self.reports.items():
            if subject.version in versions and earned.mature and earned.requests > 1:
                seen[subject.window][subject.age][subject.version] = earned
        windows = []
        for window, ages in sorted(seen.items()):
            if complete := [age for age, by in ages.items() if len(by) == len(versions)]:
                windows.append((window, ages[max(complete)]))
        return windows
