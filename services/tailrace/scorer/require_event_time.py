"""In a lane whose time is a replay's, a request has to say its own: when it was appended means nothing there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tailrace.errors import BadRecord
from tailrace.scorer.batch import Batch


def require_time(work: Batch, is_replayed: Callable[[str], bool]) -> None:
    """Takes out the requests without an event time, in lanes (by name) that are replayed."""
    kept = []
    for requests in work.requests:
        lane, name = requests.plan.lane.name, requests.plan.contract.event_time.name
        present = requests.columns[name].present
        if present is None or present.all() or not is_replayed(lane):
            kept.append(requests)
            continue
        for at in requests.at[~present].tolist():
            reason = (
                f"the clock of lane {lane} is a replay's: say {name}, or end the replay's time with "
                f"`tailrace clock {requests.plan.model} wall`"
            )
            work.bad[at] = BadRecord("missing-event-time", reason, name)
        if present.any():
            kept.append(requests.take(np.flatnonzero(present)))
    work.requests = kept
