"""Tells what verify may accuse after an attack on a lane's topics from what is honest."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from tailrace.joiner.forward import Forwarded
from tailrace.kit import dead_letters
from tailrace.kit.codec import Codec
from tailrace.kit.errors import BadRecord
from tailrace.kit.messages import Message, Source
from tailrace.verify.heads import Heads


class Touched:
    """What forged records are, and what they speak of: verify may accuse these, and what was made of them.

    Args:
        forged: where they are.
        messages: all that is in the log.
    """

    def __init__(self, forged: Iterable[Source], messages: Iterable[Message], codec: Codec) -> None:
        self._codec, self._heads = codec, Heads(codec)
        self._messages = {Source.of(message): message for message in messages}
        self._forged: set[Hashable] = set()
        for place in forged:
            self._forged |= self._said(place)

    def is_accused(self, problem: dict[str, Any]) -> bool:
        """Whether a problem is about one of these."""
        place = Source(problem["topic"], problem["partition"], problem["offset"])
        return not self._forged.isdisjoint(self._said(place))

    def _said(self, place: Source) -> set[Hashable]:
        """Where a record is, which records it names, and the id of its prediction."""
        said: set[Hashable] = {place}
        message = self._messages.get(place)
        if message is None:
            return said
        with suppress(BadRecord):
            said.add(Source(*Forwarded.of(message)[:3]))
        with suppress(ValueError):
            said.add(dead_letters.parse(message).source)
        # As verify does: of a prediction that is cut off, it reads the beginning.
        for read in (lambda value: self._codec.decode(value).record, self._heads.read):
            with suppress(BadRecord):
                said |= set(_named(read(message.value())))
        return said


def _named(value: Any) -> Iterator[Hashable]:
    """Every place and prediction id in a record."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        if value.keys() == {"topic", "partition", "offset"}:
            yield Source(**value)
        if "prediction_id" in value:
            yield value["prediction_id"]
        for inner in value.values():
            yield from _named(inner)
