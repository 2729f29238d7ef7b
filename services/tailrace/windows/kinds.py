"""Event-time windows: what a kind of them (drift, performance) supplies, and what `WindowedProcessor` makes of it.

A window is counted in parts: each batch of each instance adds cells to windows, and says how far it has counted each
partition. The parts of a model come together in one place, where a window is judged once every partition has been
counted far enough. Nothing of it depends on how partitions interleave: cells add up in any order, and windows are
judged in an order of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.state.contracts import AppliedContract, Contracts
from tailrace.errors import BadRecord
from tailrace.streaming.records import Message, Record

Times = NDArray[np.int64]
"""Event times in milliseconds."""

NO_TIME = -(2**62)
"""Before all event times: the stream time of a partition that has shown none."""


class ReadRows(NamedTuple):
    """Messages that were read: their event times, why some are bad (by position), and whatever counting needs."""

    times: Times
    bad: Mapping[int, BadRecord]
    data: Any


class Cell(NamedTuple):
    """What is added to one window.

    Attributes:
        stream: ``predictions`` or ``shadow-predictions``: whose stream times close the window.
        contract_digest: the contract that the counted predictions were made under; it says how long a window is.
        window_start: aligned to the epoch; see `window_starts`.
        age: index of the first of the kind's ages at which the window is judged that sees this.
        subject: what within the window is counted (role, version, segment), as canonical JSON; see `subject`.
        counts: what is added, in a form of the kind's own.
    """

    stream: str
    contract_digest: str
    window_start: int
    age: int
    subject: str
    counts: bytes


class Closed(NamedTuple):
    """A window at an age: everything that will ever be known of it at this age.

    Attributes:
        age: index of the age.
        subjects: sums of the counts of this age and earlier ones, in the order of the subjects' texts.
    """

    model: str
    stream: str
    contract: AppliedContract
    window_start: int
    age: int
    subjects: dict[str, Any]


class WindowVerdict(NamedTuple):
    """What follows from a closed window: records to be written, and the new memory (JSON)."""

    records: list[Record]
    memory: dict[str, Any]


class Windows(Protocol):
    """A kind of windows. Everything is a function of its arguments and of the control topics."""

    @property
    def kind(self) -> str: ...

    def control_topics(self) -> Sequence[str]: ...

    def control(self, messages: Sequence[Message]) -> None:
        """What is new on the control topics. Raises ``Unavailable``."""
        ...

    def contracts(self) -> Contracts: ...

    def look_again(self) -> None:
        """Takes up everything that is on the control topics by now. Raises ``Unavailable``."""
        ...

    def topics(self) -> Collection[str]:
        """Topics of lanes that are counted."""
        ...

    def stream_of(self, topic: str) -> str | None:
        """The stream whose time a topic's records move; None where watermark records alone do, each its stream's."""
        ...

    def sources(self, contract: AppliedContract, stream: str) -> Sequence[str]:
        """Topics that have to be counted far enough before a window of the stream is judged."""
        ...

    def read(self, topic: str, messages: Sequence[Message]) -> ReadRows:
        """Reads messages of a topic, of several partitions, without watermark records. Raises ``Unavailable``."""
        ...

    def count(self, topic: str, rows: ReadRows, before: Times) -> Sequence[tuple[str, Cell]]:
        """The cells of the rows that are not bad, each with its model, as few as may be.

        ``before`` is the stream time of each row's partition before the row, `NO_TIME` where there was none (and where
        ``stream_of`` is None). A row must go to a cell whose ``closes_at`` is later than ``before``; so one that is
        late has to be counted elsewhere.
        """
        ...

    def length_ms(self, contract: AppliedContract) -> int:
        """How long a window is."""
        ...

    def ages(self, contract: AppliedContract) -> int:
        """At how many ages a window is judged."""
        ...

    def closes_at(self, contract: AppliedContract, window_start: int, age: int) -> int:
        """The stream time that all partitions have to reach before the window is judged at an age; rises with age, and
        is the same distance from the start of every window.
        """
        ...

    def check(self, cell: Cell) -> None:
        """Raises `BadRecord` where ``count`` makes no such subject or counts."""
        ...

    def add(self, into: Any | None, counts: bytes) -> Any:
        """The sum, as a new object: ``into`` stays as it is. The order of additions must not matter."""
        ...

    def pack(self, total: Any) -> bytes:
        """Counts that, added to None, make an equal sum."""
        ...

    def judge(self, closed: Closed, memory: dict[str, Any]) -> WindowVerdict:
        """Judges a window. Called for the windows of a model and stream in the order of ``closes_at``, then start,
        digest, age; ``memory`` is what the call before returned for this model and stream, {} at first.

        A window is judged at each age from the first at which anything is counted.
        """
        ...


def window_starts(times: Times, length_ms: int) -> Times:
    """The starts of the windows in which times lie: half-open, aligned to the epoch."""
    return times - times % length_ms
