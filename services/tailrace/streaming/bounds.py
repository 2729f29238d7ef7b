"""How much one step of a service may be: in records, bytes and time (docs/adr/0198)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tailrace.streaming.processor import Clock
from tailrace.streaming.records import Message, Record, Records, Runs


class Bounds(NamedTuple):
    """What one step takes in, writes in its transaction, or takes to be worked out.

    A step is split between records, never within one: what comes of a single record may exceed this.
    """

    records: int = 20_000
    size: int = 16 * 1024 * 1024
    seconds: float = 1.0

    def hold(self, records: int, size: int, seconds: float = 0.0) -> bool:
        return records <= self.records and size <= self.size and seconds <= self.seconds

    def half(self) -> Bounds:
        return Bounds(self.records // 2, self.size // 2, self.seconds / 2)


STEP = Bounds()


class Budget:
    """What is left of the bounds of one step for what is due. Whoever works that off asks it after each item.

    A quarter of the bounds is kept for what the last item brings, and for what else the step writes: a batch that comes
    to more than the bounds is given up and taken again in halves, though what is due would be as much with one record.
    """

    def __init__(self, bounds: Bounds = STEP, clock: Clock | None = None) -> None:
        self._records, self._items = max(1, bounds.records * 3 // 4), bounds.records
        self._size, self._clock = bounds.size * 3 // 4, clock
        self._until = 0 if clock is None else clock.perf_ns() + int(bounds.seconds * 1e9)

    def visit(self) -> None:
        """One item was looked at, whatever comes of it."""
        self._items -= 1

    def take(self, records: int, size: int) -> None:
        """Something was made to be written."""
        self._records -= records
        self._size -= size

    @property
    def spent(self) -> bool:
        late = self._clock is not None and self._clock.perf_ns() >= self._until
        return late or min(self._records, self._size) <= 0

    @property
    def is_visited(self) -> bool:
        """Whether no further item is to be looked at."""
        return self._items <= 0


def size_of(records: Iterable[Record]) -> int:
    """Bytes of the values."""
    if isinstance(records, Records):
        return int((records.values.ends - records.values.begins).sum())
    if isinstance(records, Runs):
        return sum(map(size_of, records.runs))
    return sum(len(record.value) for record in records if record.value is not None)


def prefix(messages: Sequence[Message], size: int) -> Sequence[Message]:
    """The first messages that have no more bytes together; at least one."""
    if sum(map(len, messages)) <= size:
        return messages
    for at, message in enumerate(messages):
        size -= len(message)
        if size < 0:
            return messages[: max(at, 1)]
    return messages
