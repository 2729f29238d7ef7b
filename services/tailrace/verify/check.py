"""The accounts themselves: plain functions over offsets, without a topic in sight.

Offsets are int64 arrays, eight bytes a record, so that a whole retained log fits: ten million requests and
their answers are 160 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.streaming.records import TopicPartition

Offsets = NDArray[np.int64]


class Growing:
    """Offsets as they are read."""

    def __init__(self) -> None:
        self._held = array("q")
        self.append = self._held.append

    def __len__(self) -> int:
        return len(self._held)

    def array(self) -> Offsets:
        """All of them, sorted, repetitions kept."""
        return np.sort(np.array(self._held, dtype=np.int64))


class Account(NamedTuple):
    """What became of one partition's requests; each field holds the offsets concerned, sorted.

    ``in_flight`` are requests that nobody has claimed to be done with; ``lost`` are those that the scorer's
    committed offset is past, without an answer; ``duplicated`` were answered more than once; ``unasked``
    are answers that name a request which is not there.
    """

    requests: Offsets
    in_flight: Offsets
    lost: Offsets
    duplicated: Offsets
    unasked: Offsets

    @property
    def ok(self) -> bool:
        return not (self.lost.size or self.duplicated.size or self.unasked.size)


def account(
    requested: Offsets, answered: Offsets, *, low: int, compared_from: int, committed: int | None
) -> Account:
    """Settles one partition of a requests topic.

    Args:
        requested: offsets of the requests that are retained.
        answered: offsets of the requests that the retained answers name, one per answer.
        low: the first offset that the requests topic retains; answers to older requests are left out.
        compared_from: the first offset whose answer is certain to be retained; older requests are left out.
        committed: the scorer's committed offset: all before it is done. None: it has committed nothing.
    """
    requests = requested[requested >= max(low, compared_from)]
    named, times = np.unique(answered[answered >= low], return_counts=True)
    unanswered = np.setdiff1d(requests, named, assume_unique=True)
    done = low if committed is None else committed
    return Account(
        requests=requests,
        in_flight=unanswered[unanswered >= done],
        lost=unanswered[unanswered < done],
        duplicated=named[times > 1],
        unasked=np.setdiff1d(named, requested, assume_unique=True),
    )


class Stored(NamedTuple):
    """Rows against events of one partition; each field holds offsets, sorted."""

    missing: Offsets
    doubled: Offsets
    unknown: Offsets

    @property
    def ok(self) -> bool:
        return not (self.missing.size or self.doubled.size or self.unknown.size)


def compare_rows(events: Offsets, rows: Offsets) -> Stored:
    """Compares a partition's events with the rows stored of it: one offset each."""
    stored, times = np.unique(rows, return_counts=True)
    return Stored(
        missing=np.setdiff1d(events, stored, assume_unique=True),
        doubled=stored[times > 1],
        unknown=np.setdiff1d(stored, events, assume_unique=True),
    )


@dataclass(frozen=True)
class AccountProblem:
    """One offence against the accounts, with where to look."""

    check: str
    topic: str
    partition: int
    offset: int
    detail: str

    def __str__(self) -> str:
        return f"{self.check}: {self.topic}/{self.partition}/{self.offset}: {self.detail}"


def problems_at(check: str, at: TopicPartition, offsets: Offsets, detail: str) -> Iterator[AccountProblem]:
    """One problem for each offset."""
    return (AccountProblem(check, *at, int(offset), detail) for offset in offsets)


def differences(logged: Any, again: Any, path: str = "") -> list[str]:
    """Where two events differ, as ``field: logged / again``. NaN equals NaN, nothing is rounded."""
    if isinstance(logged, dict) and isinstance(again, dict):
        return [
            line
            for name in dict.fromkeys([*logged, *again])
            for line in differences(logged.get(name), again.get(name), f"{path}.{name}".removeprefix("."))
        ]
    if isinstance(logged, list) and isinstance(again, list) and len(logged) == len(again):
        return [
            line
            for i, (a, b) in enumerate(zip(logged, again, strict=True))
            for line in differences(a, b, f"{path}[{i}]")
        ]
    if isinstance(logged, float) and isinstance(again, float):
        same = repr(logged) == repr(again)  # to the bit: 0 is not -0, and NaN is NaN
    else:
        same = type(logged) is type(again) and logged == again
    return [] if same else [f"{path}: {logged!r} / {again!r}"]
