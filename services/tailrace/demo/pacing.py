"""Lets event time stand still while the services are behind, so that a story is the same on a machine that is busy.

Everything that services decide follows from event times. What a slow machine changes is only how far event time has
come meanwhile; and a stream that is over too soon leaves no requests for what is still to happen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from tailrace.demo.milestones import day
from tailrace.demo.observed import Seen
from tailrace.runtime.patience import Patience

TIMES = 10
"""How many times as long as usual the demo may take."""
STILL_S = 120.0
"""Seconds without any progress, after which what is waited for will not happen."""
_UNANSWERED_S = 2.0
_WINDOWS = 3


def behind(seen: Seen, sent: int, rate: float) -> str | None:
    """What services have yet to do about what was sent; None where they keep up."""
    unanswered = sent - len(seen.answers) - seen.dead_letters
    if unanswered > _UNANSWERED_S * rate:
        return f"answers to {unanswered:,} requests"
    if training := seen.training():
        return f"a training run ({training[-1]['state']})"
    let_in = {step["version"] for step in seen.steps}
    published = [run["version"] for run in list(seen.runs.values()) if run["state"] == "published"]
    if waiting := [version for version in published if version not in let_in]:
        return f"version {waiting[0]} to be taken up, which is published"
    return None


def unjudged(seen: Seen, start_ms: int, window_ms: int) -> str | None:
    """Which windows have yet to be judged that are over for long, in a stream that has requests in every window."""
    due = seen.event_ms - _WINDOWS * window_ms
    for kind, reports in (("drift", seen.drift), ("performance", seen.performance)):
        last = max((int(report["window_end"]) for report in list(reports.values())), default=start_ms)
        if last < due:
            return f"{kind} reports on windows until {day(due)}"
    return None


class Pacing:
    """Decides when event time is to stand still: where services have been behind for longer than usual, until they are
    not; and no longer than they make progress.

    Args:
        usual_s: for how long services may be behind; on a machine that has nothing else to do they never are.
        now: a clock, in seconds.
    """

    def __init__(self, usual_s: float = 8.0, now: Callable[[], float] = time.monotonic) -> None:
        self._usual_s = usual_s
        self._now = now
        self._since: float | None = None
        self._given_up = False
        self._patience = Patience(STILL_S, now)

    def holds(self, reason: str | None, *progress: Hashable) -> bool:
        """Whether to stand still, now that this is what services are behind with."""
        if reason is None:
            self._since, self._given_up = None, False
            return False
        if self._since is None:
            self._since = self._now()
            self._patience = Patience(STILL_S, self._now)
        self._given_up |= not self._patience.look(*progress)
        return not self._given_up and self._now() - self._since >= self._usual_s
