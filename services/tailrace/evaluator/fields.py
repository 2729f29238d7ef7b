"""Reads fields of many messages: by columns where their schema allows it, else one message after the other.

The plain codec (fastavro) is the reference. It reads rows that the columns refuse, which it either can read after all
or says what is wrong with, and fields that are maps.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from typing import Any

import fastavro
import numpy as np
from fastavro.schema import SchemaParseException

from tailrace.avro.codec import Codec, read_schema_id
from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.decoder import ColumnDecoder
from tailrace.avro.columns.decoder_kernels import schema_ids
from tailrace.avro.strict_types import plain
from tailrace.errors import BadRecord
from tailrace.evaluator.field_columns import Fields, column_of
from tailrace.statistics.result import Ints


class FieldReader:
    """Reads values in wire format."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._decoders: dict[tuple[int, frozenset[str], str | None], ColumnDecoder | None] = {}
        self._arrays: dict[tuple[int, str], Any] = {}

    def read(
        self, values: BytesColumn, names: Collection[str], bad: dict[int, BadRecord], array: str | None = None
    ) -> Iterator[tuple[Ints, Fields]]:
        """Rows of one schema at a time, as positions in ``values`` and their fields; a field that the schema does
        not have has no value.

        Args:
            bad: gets what cannot be read, by position.
            array: the name of an array that is read as well.

        Raises:
            Unavailable: a schema is not to be had for the moment.
        """
        self._codec.begin_batch()
        ids = schema_ids(values.bytes, values.begins, values.ends)
        for row in np.flatnonzero(ids < 0).tolist():
            try:
                read_schema_id(values[row])
            except BadRecord as error:
                bad[row] = error
        for schema_id in np.unique(ids[ids >= 0]).tolist():
            rows = np.flatnonzero(ids == schema_id)
            decoder = self._decoder(schema_id, frozenset(names), array)
            if decoder is not None:
                columns, good, pieces = decoder.decode(values.take(rows))
                nothing = column_of([None] * len(rows))
                fields = {name: columns.get(name, nothing) for name in names}
                done, rows = (rows, rows[:0]) if good is None else (rows[good], rows[~good])
                if good is not None:
                    fields = {name: column.take(np.flatnonzero(good)) for name, column in fields.items()}
                if array is not None:
                    known = column_of(self._array(schema_id, array, piece) for piece in pieces.values)
                    fields[array] = known.take(pieces.at if good is None else pieces.at[good])
                yield done, fields
            if len(rows):
                yield self.read_plainly(values, rows, [*names, *([] if array is None else [array])], bad)

    def read_plainly(
        self, values: BytesColumn, rows: Ints, names: Collection[str], bad: dict[int, BadRecord]
    ) -> tuple[Ints, Fields]:
        """The same by the reference, for some of the rows; maps can be read as well."""
        records, read = [], []
        for row in rows.tolist():
            try:
                records.append(self._codec.decode(values[row]).record)
                read.append(row)
            except BadRecord as error:
                bad[row] = error
        fields = {name: column_of(_within(record, name.split(".")) for record in records) for name in names}
        return np.array(read, dtype=np.int64), fields

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


def _within(record: Any, path: list[str]) -> Any:
    for name in path:
        if not isinstance(record, dict):
            return None
        record = record.get(name)
    return record
