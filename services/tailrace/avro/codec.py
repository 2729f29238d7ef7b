"""Avro in Confluent's wire format: a zero byte, the schema's id in four bytes, the body.

This is the plain path and the reference: one record at a time by fastavro. What is faster is tested against it, byte
for byte. Timestamps are whole milliseconds in our records, both ways: the registered schema names the logical type, so
that ClickHouse and others see a time; here nothing is turned into datetimes.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import fastavro
from fastavro.schema import to_parsing_canonical_form

from tailrace.avro.limits import check_limits
from tailrace.avro.registry import Registry, Schema
from tailrace.avro.strict_types import conforms, logical_types, plain
from tailrace.errors import BadRecord

HEADER = struct.Struct(">bI")
MAGIC = 0


class DecodedRecord(NamedTuple):
    """A record and the schema that it was written with."""

    schema_id: int
    record: dict[str, Any]


class _Parsed(NamedTuple):
    schema: Schema
    """As registered."""
    plain: Any
    """Parsed by fastavro, without logical types."""
    check: Callable[[Any], None]
    """Raises BadRecord naming the field where a value is not of its type."""


class Codec:
    """Encodes and decodes by schema id: `BadRecord` for bad data, `Unavailable` while the registry is away.

    Schemas are parsed once; decoding touches the registry only for an id never seen before. A schema given as
    a dict is recognised by identity: keep it, do not build it anew for every record, and do not change it.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._writers: dict[int, _Parsed] = {}
        self._readers: dict[int, _Parsed] = {}
        # Pairs of (writer id, reader) that resolve; None where reader and writer are the same and nothing is
        # to do.
        self._resolved: dict[tuple[int, int], Any] = {}
        self._copies: dict[tuple[int, int], bool] = {}
        self._unknown: dict[int, BadRecord] | None = None

    def begin_batch(self) -> None:
        """From now on, an id that the registry does not know is asked for once, until the next batch begins.

        That holds within a batch: its records were all written before it was read, so that an id unknown now was
        unknown to their writers. Beyond it an unknown id may become known any moment.
        """
        self._unknown = {}

    def writer_schema(self, schema_id: int) -> Schema:
        """The registered schema. Raises `UnknownSchema`, `Unavailable`."""
        return self._writer(schema_id).schema

    def encode(self, schema_id: int, record: Mapping[str, Any]) -> bytes:
        """The record's wire format.

        Values must be of the schema's types exactly (an integer where a double stands is fine); a field that
        is missing takes its default.

        Raises:
            BadRecord: ``wrong-type``, ``out-of-range``, ``unknown-field``, ``missing-field`` or ``not-
                unicode``, with the field.
        """
        parsed = self._writer(schema_id)
        parsed.check(record)
        buffer = io.BytesIO()
        buffer.write(HEADER.pack(MAGIC, schema_id))
        fastavro.schemaless_writer(buffer, parsed.plain, record)
        return buffer.getvalue()

    def decode(self, value: bytes | None, reader_schema: Schema | None = None) -> DecodedRecord:
        """The record in this wire format; with a reader schema, resolved to it from its writer's.

        Raises:
            BadRecord: ``empty``, ``wrong-magic``, ``truncated``, ``trailing-bytes``, ``corrupt``,
                ``unknown-schema``, ``unsupported-schema``, ``incompatible-schema``.
        """
        schema_id = read_schema_id(value)
        assert value is not None
        writer = self._writer(schema_id)
        reader = None if reader_schema is None else self._resolve(schema_id, writer, reader_schema)
        buffer = io.BytesIO(value)
        buffer.seek(HEADER.size)
        try:
            record = fastavro.schemaless_reader(buffer, writer.plain, reader)
        except EOFError as error:
            # fastavro names its buffer by address: a reason is the same whoever reads the record.
            why = str(error).partition(" from <")[0] or "no bytes left"
            raise BadRecord("truncated", f"the Avro body ends early: {why}") from error
        except fastavro.read.SchemaResolutionError as error:
            reason = f"what schema {schema_id} wrote cannot be read as what is expected: {error}"
            raise BadRecord("incompatible-schema", reason) from error
        except Exception as error:
            # Both schemas were parsed before: whatever else fails here fails because of the bytes. Where they
            # end within a number, fastavro stumbles over an empty string.
            if isinstance(error, IndexError) and "string" in str(error):
                raise BadRecord("truncated", "the Avro body ends within a number") from error
            why = f"{type(error).__name__}: {error}"
            raise BadRecord("corrupt", f"the Avro body cannot be read: {why}") from error
        if (rest := len(value) - buffer.tell()) != 0:
            raise BadRecord("trailing-bytes", f"{rest} bytes follow the Avro body")
        if not isinstance(record, dict):
            raise BadRecord("unsupported-schema", f"schema {schema_id} is not of a record")
        return DecodedRecord(schema_id, record)

    def copies(self, schema_id: int, reader_schema: Schema) -> bool:
        """Whether a body written with this schema id is, byte for byte, a body of the reader schema.

        Where it is, a request's body may stand as it is for the nested request of its prediction. Field
        names, order, types and logical types must agree; documentation and defaults do not matter.
        """
        pair = (schema_id, id(reader_schema))
        if pair not in self._copies:
            writer, reader = self._writer(schema_id), self._reader(reader_schema)
            written, read = map(to_parsing_canonical_form, (writer.plain, reader.plain))
            same_types = logical_types(writer.schema) == logical_types(reader.schema)
            self._copies[pair] = written == read and same_types
        return self._copies[pair]

    def _writer(self, schema_id: int) -> _Parsed:
        parsed = self._writers.get(schema_id)
        if parsed is None:
            schema = self._ask(schema_id)
            try:
                parsed = self._writers[schema_id] = _parse(schema)
            except Exception as error:
                reason = f"schema {schema_id} is no Avro schema that can be used: {error}"
                raise BadRecord("unsupported-schema", reason) from error
        return parsed

    def _ask(self, schema_id: int) -> Schema:
        if self._unknown is None:
            return self._registry.schema(schema_id)
        if (unknown := self._unknown.get(schema_id)) is not None:
            raise unknown.with_traceback(None)
        try:
            return self._registry.schema(schema_id)
        except BadRecord as error:
            self._unknown[schema_id] = error
            raise

    def _reader(self, schema: Schema) -> _Parsed:
        # The entry keeps the schema alive, so that its id() stays its own.
        parsed = self._readers.get(id(schema))
        if parsed is None:
            parsed = self._readers[id(schema)] = _parse(schema)
        return parsed

    def _resolve(self, schema_id: int, writer: _Parsed, reader_schema: Schema) -> Any:
        pair = (schema_id, id(reader_schema))
        try:
            return self._resolved[pair]
        except KeyError:
            reader = self._reader(reader_schema)
            _same_logical_types(schema_id, writer.schema, reader.schema)
            same = self.copies(schema_id, reader_schema)
            resolved = self._resolved[pair] = None if same else reader.plain
            return resolved


def read_schema_id(value: bytes | None) -> int:
    """The schema id that a message's value names.

    Raises:
        BadRecord: ``empty``, ``wrong-magic``, ``truncated``.
    """
    if not value:
        raise BadRecord("empty", "the message has no value")
    if value[0] != MAGIC:
        reason = f"the first byte is 0x{value[0]:02x}: neither Avro (0x00) nor JSON (0x7b)"
        raise BadRecord("wrong-magic", reason)
    if len(value) < HEADER.size:
        raise BadRecord("truncated", f"{len(value)} bytes are too few for a schema id")
    schema_id: int = HEADER.unpack_from(value)[1]
    return schema_id


def is_json(value: bytes | None) -> bool:
    """Whether the value is a JSON object rather than Avro: its first byte is an opening brace."""
    return value is not None and value[:1] == b"{"


def as_text(value: object) -> object:
    """A value that was read without a reader's schema and is to be text: bytes are promoted, as Avro does."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _same_logical_types(schema_id: int, writer: Schema, reader: Schema) -> None:
    # Avro resolves schemas without regard to logical types, so that microseconds would pass for milliseconds.
    written, read = logical_types(writer), logical_types(reader)
    for path in written.keys() & read.keys():
        if written[path] != read[path]:
            reason = f"schema {schema_id} writes {path} as {written[path]}, it is to be {read[path]}"
            raise BadRecord("incompatible-schema", reason, path)


def _parse(schema: Schema) -> _Parsed:
    parsed = fastavro.parse_schema(plain(schema))
    check_limits(schema)
    return _Parsed(schema, parsed, conforms(schema))
