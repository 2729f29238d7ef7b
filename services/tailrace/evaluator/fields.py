"""Reads fields of many messages: by columns where their schema allows it, else one message after the other.

The plain codec (fastavro) is the reference. It reads rows that the columns refuse, which it either can read after all
or says what is wrong with, and fields that are maps.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import fastavro
import numpy as np
from fastavro.schema import SchemaParseException

from tailrace.avro.codec import Codec, read_schema_id
from tailrace.avro.columns.decoder import Column, ColumnDecoder
from tailrace.avro.strict_types import plain
from tailrace.errors import BadRecord
from tailrace.streaming.records import Message

Fields = Mapping[str, list[Any]]
"""By name, those within records with a dot between: a value of each row, None where there is none."""


class FieldReader:
    """Reads messages in wire format."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._decoders: dict[tuple[int, frozenset[str], str | None], ColumnDecoder | None] = {}
        self._arrays: dict[tuple[int, str], Any] = {}

    def read(
        self,
        messages: Sequence[Message],
        names: Collection[str],
        bad: dict[int, BadRecord],
        array: str | None = None,
    ) -> Iterator[tuple[list[int], Fields]]:
        """Rows of one schema at a time, as positions in ``messages`` and their fields; a field that the schema does
        not have is None.

        Args:
            bad: is told what cannot be read, by position.
            array: the name of an array that is read as well.

        Raises:
            Unavailable: a schema is not to be had for the moment.
        """
        self._codec.begin_batch()
        by_schema: dict[int, list[int]] = defaultdict(list)
        for at, message in enumerate(messages):
            try:
                by_schema[read_schema_id(message.value())].append(at)
            except BadRecord as error:
                bad[at] = error
        for schema_id, rows in sorted(by_schema.items()):
            left = rows
            decoder = self._decoder(schema_id, frozenset(names), array)
            if decoder is not None:
                found = decoder.decode([messages[row].value() or b"" for row in rows])
                good = [True] * len(rows) if found.good is None else found.good.tolist()
                left = [row for row, fine in zip(rows, good, strict=True) if not fine]
                nothing = [None] * len(rows)
                columns = {
                    name: _values(found.columns[name]) if name in found.columns else nothing for name in names
                }
                if array is not None:
                    known = [self._array(schema_id, array, piece) for piece in found.pieces.values]
                    columns[array] = [known[at] if at >= 0 else None for at in found.pieces.at.tolist()]
                if left:
                    columns = {
                        name: [value for value, fine in zip(column, good, strict=True) if fine]
                        for name, column in columns.items()
                    }
                yield [row for row, fine in zip(rows, good, strict=True) if fine], columns
            if left:
                others = [] if array is None else [array]
                yield self.read_plainly(messages, left, [*names, *others], bad)

    def read_plainly(
        self,
        messages: Sequence[Message],
        rows: Collection[int],
        names: Collection[str],
        bad: dict[int, BadRecord],
    ) -> tuple[list[int], Fields]:
        """The same by the reference, for some of the rows; maps can be read as well."""
        records, read = [], []
        for row in rows:
            try:
                records.append(self._codec.decode(messages[row].value()).record)
                read.append(row)
            except BadRecord as error:
                bad[row] = error
        return read, {name: [_within(record, name.split(".")) for record in records] for name in names}

    def _array(self, schema_id: int, name: str, piece: bytes) -> Any:
        """The array of this name, from its bytes; None where the schema has none, or its texts are not UTF-8."""
        key = schema_id, name
        try:
            if key not in self._arrays:
                schema: Any = plain(self._codec.writer_schema(schema_id))
                for part in name.split("."):
                    schema = {f["name"]: f["type"] for f in schema["fields"]}[part]
                self._arrays[key] = fastavro.parse_schema(schema)
            return fastavro.schemaless_reader(io.BytesIO(piece), self._arrays[key], None)
        except (LookupError, TypeError, ValueError, EOFError, SchemaParseException):
            return None

    def _decoder(self, schema_id: int, names: frozenset[str], array: str | None) -> ColumnDecoder | None:
        """None where the schema's rows have to be read one by one, or cannot be read at all."""
        key = schema_id, names, array
        if key not in self._decoders:
            try:
                schema: Any = self._codec.writer_schema(schema_id)
                decoder = ColumnDecoder(schema, read=names, pieces=() if array is None else (array,))
            except (BadRecord, ValueError, LookupError, TypeError):
                return None
            self._decoders[key] = decoder
        return self._decoders[key]


def _values(column: Column) -> list[Any]:
    if not isinstance(column.values, np.ndarray):
        texts: dict[bytes | None, str | None] = {None: None}
        for data in set(column.values) - {None}:
            texts[data] = data.decode(errors="replace")  # what is not UTF-8 is of rows that are not good
        return [texts[data] for data in column.values]
    values: list[Any] = column.values.tolist()
    if column.present is None:
        return values
    return [value if there else None for value, there in zip(values, column.present.tolist(), strict=True)]


def _within(record: Any, path: list[str]) -> Any:
    for name in path:
        if not isinstance(record, dict):
            return None
        record = record.get(name)
    return record
