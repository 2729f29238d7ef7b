"""Tells what verify may accuse after an attack on a lane's topics from what is honest."""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import fastavro

from tailrace.avro.codec import HEADER, Codec, read_schema_id
from tailrace.avro.strict_types import plain
from tailrace.errors import BadRecord
from tailrace.joiner.repartition import Origin
from tailrace.streaming import dead_letters
from tailrace.streaming.records import Message, RecordRef

_IDS = ("prediction_id", "outcome_id")


class Touched:
    """What forged records are, and what they speak of: verify may accuse these, and what was made of them.

    Args:
        forged: where they are.
        messages: all that is in the log.
    """

    def __init__(self, forged: Iterable[RecordRef], messages: Iterable[Message], codec: Codec) -> None:
        self._codec = codec
        self._beginnings: dict[int, list[Any]] = {}
        self._messages = {RecordRef.of(message): message for message in messages}
        self._forged: set[Hashable] = set()
        for place in forged:
            self._forged |= self._said(place)

    def is_accused(self, problem: dict[str, Any]) -> bool:
        """Whether a problem is about one of these."""
        place = RecordRef(problem["topic"], problem["partition"], problem["offset"])
        return not self._forged.isdisjoint(self._said(place))

    def _said(self, place: RecordRef) -> set[Hashable]:
        """Where a record is, which records it names, and the ids of its prediction and its outcome."""
        names: set[Hashable] = {place}
        message = self._messages.get(place)
        if message is None:
            return names
        with suppress(BadRecord):
            names.add(RecordRef(*Origin.of(message)[:3]))
        with suppress(ValueError):
            names.add(dead_letters.parse(message).source)
        with suppress(BadRecord):
            names |= set(_named(self._beginning(message.value())))
        return names

    def _beginning(self, value: bytes | None) -> dict[str, Any]:
        """As many of a record's first fields as can be read: verify reads no more of some records than it needs."""
        schema_id = read_schema_id(value)
        assert value is not None
        if schema_id not in self._beginnings:
            shorter = _shorter(plain(self._codec.writer_schema(schema_id)))
            self._beginnings[schema_id] = [fastavro.parse_schema(schema) for schema in shorter]
        for schema in self._beginnings[schema_id]:
            with suppress(Exception):
                fields = fastavro.schemaless_reader(io.BytesIO(value[HEADER.size :]), schema, None)
                if isinstance(fields, dict):
                    return fields
        return {}


def _shorter(schema: Any) -> Iterator[Any]:
    """The schema of a record, then schemas of ever fewer of its first fields, also of those of its last field."""
    fields = schema.get("fields", []) if isinstance(schema, dict) else []
    for count in range(len(fields), 0, -1):
        yield {**schema, "fields": fields[:count]}
        last = fields[count - 1]
        for inner in _shorter(last["type"]):
            yield {**schema, "fields": [*fields[: count - 1], {**last, "type": inner}]}


def _named(value: Any) -> Iterator[Hashable]:
    """Every place and prediction id in a record."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        if value.keys() == {"topic", "partition", "offset"}:
            yield RecordRef(**value)
        yield from (value[name] for name in _IDS if name in value)
        for inner in value.values():
            yield from _named(inner)
