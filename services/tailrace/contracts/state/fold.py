"""The one fold of control topics: reads what is new, and applies what counts.

Which topics are folded, and into what, is given from above: contracts and clocks are folded here, rollouts and packages
where models are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tailrace.contracts.state.records import ControlRecords
from tailrace.streaming.records import Message

Apply = Callable[[Mapping[str, Any], int], bool]
"""Takes a decoded record and its offset; says whether it came into force."""


class Taken(NamedTuple):
    """A message, its record (None where it counts for nothing), and whether it came into force."""

    message: Message
    record: dict[str, Any] | None
    came: bool

    @property
    def topic(self) -> str:
        return self.message.topic()


class ControlState:
    """Folds control topics.

    Args:
        records: reads and checks.
        folds: by topic, what its records are applied to.
    """

    def __init__(self, records: ControlRecords, folds: Mapping[str, Apply]) -> None:
        self._records, self._folds = records, folds

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
            yield Taken(message, record, self._apply(message, record))

    def _apply(self, message: Message, record: Mapping[str, Any] | None) -> bool:
        apply = self._folds.get(message.topic())
        return apply is not None and record is not None and apply(record, message.offset())
