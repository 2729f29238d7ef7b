"""What a replay sends, in order of event time. Plain functions over arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

REQUEST, LABEL, ACTION = 0, 1, 2
_ROUND_MS = tuple(minutes * 60_000 for minutes in (1440, 720, 360, 180, 60, 30, 10, 5, 1))


class LaterRecords(NamedTuple):
    """What becomes known about rows after their requests: labels, or what was really done.

    Attributes:
        row: index of the row that it is about.
        time: event time in milliseconds.
    """

    row: NDArray[np.int64]
    time: NDArray[np.int64]


NOTHING = LaterRecords(np.empty(0, np.int64), np.empty(0, np.int64))


class Schedule(NamedTuple):
    """Requests, labels and actions in the order in which they are sent; each field has one entry per record.

    Attributes:
        kind: ``REQUEST``, ``LABEL`` or ``ACTION``.
        row: index of the row that it is about.
        time: event time in milliseconds.
    """

    kind: NDArray[np.int8]
    row: NDArray[np.int64]
    time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)


def schedule(
    request_times: NDArray[np.int64], labels: LaterRecords = NOTHING, actions: LaterRecords = NOTHING
) -> Schedule:
    """Merges requests with what is known later by event time.

    Of records at one event time, requests come before labels, labels before actions, each in the order of rows.
    """
    rows = np.arange(len(request_times), dtype=np.int64)
    sizes = [len(rows), len(labels.row), len(actions.row)]
    kind = np.repeat(np.array([REQUEST, LABEL, ACTION], dtype=np.int8), sizes)
    row = np.concatenate([rows, labels.row, actions.row])
    time = np.concatenate([request_times, labels.time, actions.time])
    order = np.lexsort((row, kind, time))
    return Schedule(kind[order], row[order], time[order])


class ReplayPace:
    """How many records of a schedule are due.

    Args:
        times: event times in the order of sending, ms.
        rate: records per second of wall time, or None.
        speed: event-time seconds per second of wall time, or None. With neither, everything is due at once.
    """

    def __init__(self, times: NDArray[np.int64], rate: float | None, speed: float | None) -> None:
        self._times, self._rate, self._speed = times, rate, speed

    def due(self, elapsed_s: float) -> int:
        """How many records are due ``elapsed_s`` seconds after the start."""
        if self._rate is not None:
            return min(len(self._times), int(elapsed_s * self._rate) + 1)
        if self._speed is not None and len(self._times):
            now = float(self._times[0]) + elapsed_s * 1000 * self._speed
            return int(np.searchsorted(self._times, now, side="right"))
        return len(self._times)

    def wait(self, sent: int, elapsed_s: float) -> float:
        """Seconds until the next record is due; 0 where one is due or none is left."""
        if sent >= len(self._times) or self.due(elapsed_s) > sent:
            return 0.0
        if self._rate is not None:
            return max(0.0, sent / self._rate - elapsed_s)
        assert self._speed is not None
        ahead_ms = float(self._times[sent] - self._times[0]) / self._speed
        return max(0.0, ahead_ms / 1000 - elapsed_s)


class ReplayClock:
    """The lane's clock while a replay owns it: which input partitions fell silent."""

    def __init__(self, topics: Iterable[str], partitions: int) -> None:
        self._stream_times: dict[tuple[str, int], int] = {}
        self.partitions = [(topic, partition) for topic in topics for partition in range(partitions)]
        self._last_tick: int | None = None

    def wrote(self, topic: str, partition: int, time_ms: int) -> None:
        """A record of this event time went to the partition, which is as good as a watermark record."""
        self._stream_times[topic, partition] = time_ms

    def tick(self, time_ms: int) -> list[tuple[str, int]]:
        """Event time is ``time_ms`` now: the partitions that got nothing since, for a watermark record each."""
        since, times = self._last_tick, self._stream_times
        if since is not None and time_ms <= since:
            return []
        self._last_tick = time_ms
        return [p for p in self.partitions if since is None or times.get(p, since - 1) < since]


def shorter_delay(first_ms: int, now_ms: int, delay_ms: int) -> int | None:
    """A label delay at which most labels of evenly spaced rows are known by now; None where none is of use.

    A round part of the time that the rows last: at most a tenth of it.
    """
    lasts = now_ms - first_ms
    choices = (ms for ms in _ROUND_MS if ms <= lasts / 10 and ms < delay_ms)
    return next(choices, None)
