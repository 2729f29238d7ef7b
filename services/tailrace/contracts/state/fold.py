"""The one fold of control topics: reads what is new, and applies what counts.

What is folded is given from above: contracts and clocks are known here, rollouts and packages where models are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from tailrace.contracts.state.records import ControlRecords
from tailrace.streaming.records import Message


class Fold(Protocol):
    """What the records of a topic come to."""

    @property
    def topic(self) -> str: ...

    def apply(self, record: Any, offset: int, /) -> bool:
        """Takes a decoded record and its offset, in the topic's order; says whether it came into force."""
        ...


class Taken(NamedTuple):
    """A message, its record (None where it counts for nothing), and whether it came into force."""

    message: Message
    record: Any
    came: bool

    @property
    def topic(self) -> str:
        return self.message.topic()


class ControlState:
    """Folds control topics.

    Args:
        records: reads and checks.
        folds: of the kinds of record that are needed; records of other topics are read and applied to nothing.
    """

    def __init__(self, records: ControlRecords, *folds: Fold) -> None:
        self._records, self._folds = records, {fold.topic: fold for fold in folds}

    @property
    def topics(self) -> Sequence[str]:
        return tuple(self._folds)

    def take(self, messages: Iterable[Message]) -> list[Taken]:
        """Folds messages, each topic in its order.

        Raises:
            Unavailable: the registry is away; nothing was applied, so that the same messages may be offered again.
        """
        return list(self.each(messages))

    def each(self, messages: Iterable[Message]) -> Iterator[Taken]:
        """As `take`, one message at a time: what was folded is then as it was after that message, and no later one."""
        read = [(message, self._records.read(message)) for message in messages]
        for message, record in read:
            fold = self._folds.get(message.topic())
            came = fold is not None and record is not None and fold.apply(record, message.offset())
            yield Taken(message, record, came)
