"""Reads the beginning of prediction events, up to who made them, from what and why: cheaper than the whole."""

from __future__ import annotations

import io
from typing import Any, TypedDict, cast

import fastavro

from tailrace.avro.codec import HEADER, Codec, read_schema_id
from tailrace.avro.strict_types import plain
from tailrace.errors import BadRecord

_LAST = "served_cause"


class RequestRef(TypedDict):
    """The request's coordinates."""

    topic: str
    partition: int
    offset: int


class PredictionHeader(TypedDict):
    """The first fields of a prediction event, up to who answered and why, as `prediction_schema` describes them."""

    prediction_id: str
    request_id: str
    key: str
    event_time: int
    source: RequestRef
    model: str
    version: int
    artifact_digest: str
    contract_digest: str
    rollout_revision: int
    runtime: dict[str, str]
    role: str
    arm: str | None
    served_by: str
    served_cause: str | None


class PredictionHeaders:
    """Decodes prediction events as far as their field ``served_cause``.

    Avro has no field headers: a record's first fields can be read by a schema that ends after them.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._schemas: dict[int, Any] = {}

    def read(self, value: bytes | None) -> PredictionHeader:
        """The event's fields from ``prediction_id`` to ``served_cause``.

        Raises:
            BadRecord: the bytes are no prediction event.
            Unavailable: the registry is away.
        """
        schema_id = read_schema_id(value)
        assert value is not None
        if schema_id not in self._schemas:
            self._schemas[schema_id] = self._head(schema_id)
        buffer = io.BytesIO(value)
        buffer.seek(HEADER.size)
        try:
            header = fastavro.schemaless_reader(buffer, self._schemas[schema_id], None)
        except Exception as error:
            raise BadRecord("corrupt", f"no prediction event can be read: {error!r}") from error
        assert isinstance(header, dict)
        return cast("PredictionHeader", header)

    def _head(self, schema_id: int) -> Any:
        schema = self._codec.writer_schema(schema_id)
        fields = schema.get("fields", []) if isinstance(schema, dict) else []
        names = [field["name"] for field in fields]
        if _LAST not in names:
            raise BadRecord("unsupported-schema", f"schema {schema_id} is not that of a prediction event")
        assert isinstance(schema, dict)
        return fastavro.parse_schema(plain({**schema, "fields": fields[: names.index(_LAST) + 1]}))
