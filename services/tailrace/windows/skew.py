"""Event times that cannot be: further ahead of their append time than the contract allows, or before the first year."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tailrace.errors import BadRecord
from tailrace.streaming.records import Message
from tailrace.streaming.watermark_records import EARLIEST_MS
from tailrace.windows.kinds import Times


def ahead_of_append(times: Times, messages: Sequence[Message], skew_ms: int) -> dict[int, BadRecord]:
    """By row, why its event time cannot be used. One would close every window, and make all that follows late."""
    latest = np.array([message.timestamp()[1] for message in messages], dtype=np.int64) + skew_ms
    reason = "the event time is further ahead of the append time than the contract's skew"
    rows = np.flatnonzero((times > latest) | (times < EARLIEST_MS)).tolist()
    return dict.fromkeys(rows, BadRecord("event-time-ahead", reason, "event_time"))
