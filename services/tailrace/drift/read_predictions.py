"""Predictions as columns: what is counted of them, and whose they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import fastavro
import numpy as np

from tailrace.avro.codec import HEADER, Codec, read_schema_id
from tailrace.avro.columns.decoder import Column, ColumnDecoder
from tailrace.avro.strict_types import plain
from tailrace.contracts.records.schemas import RESERVED
from tailrace.errors import BadRecord
from tailrace.models.rollout_state.fold import CHAMPIONS_ARM
from tailrace.statistics.result import Ints

EVENT_TIME = "event_time"
_OUTPUTS = ("score", "predicted_class", "value")
_REQUEST = "request"
_TIME = ("long", {"type": "long", "logicalType": "timestamp-millis"})
_TYPES: dict[str, Sequence[object]] = {
    EVENT_TIME: _TIME,
    "score": (["null", "double"],),
    "value": (["null", "double"],),
    "predicted_class": (["null", "string"],),
}
_IDENTITY = (
    "model",
    "version",
    "artifact_digest",
    "contract_digest",
    "rollout_revision",
    "runtime",
    "role",
    "arm",
    "served_by",
    "served_cause",
)
"""Consecutive fields of a prediction, the same for all that one version answered in a batch."""


class PredictionIdentity(NamedTuple):
    """Whose predictions they are. What the champion answers as an arm of an experiment, it answers as champion."""

    model: str
    version: int
    artifact_digest: str
    contract_digest: str
    role: str
    served_by: str

    @property
    def is_typed(self) -> bool:
        """Whether all is what it is said to be: the schema may be anybody's."""
        texts = (self.model, self.artifact_digest, self.contract_digest, self.role, self.served_by)
        return type(self.version) is int and all(isinstance(text, str) for text in texts)


class PredictionRows(NamedTuple):
    """Predictions of one identity.

    Attributes:
        at: where among the messages each of them is.
        request: the columns of the requests, by field.
        outputs: ``score``, ``predicted_class`` and ``value``.
    """

    identity: PredictionIdentity
    at: Ints
    event_times: Ints
    request: dict[str, Column]
    outputs: dict[str, Column]

    def take(self, rows: Ints) -> PredictionRows:
        """Some of them."""
        request = {name: column.take(rows) for name, column in self.request.items()}
        outputs = {name: column.take(rows) for name, column in self.outputs.items()}
        return PredictionRows(self.identity, self.at[rows], self.event_times[rows], request, outputs)


class PredictionReader:
    """Reads predictions of any schema that has what a prediction has."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._schemas: dict[int, _Schema] = {}

    def read(self, values: Sequence[bytes | None]) -> tuple[list[PredictionRows], dict[int, BadRecord]]:
        """The predictions, and by position why others cannot be read.

        Raises:
            Unavailable: the registry is away, and a schema id was never seen before.
        """
        predictions: list[PredictionRows] = []
        bad: dict[int, BadRecord] = {}
        self._codec.begin_batch()
        by_header: dict[bytes, tuple[list[int], list[bytes]]] = {}
        for at, value in enumerate(values):
            positions, same = by_header.setdefault((value or b"")[: HEADER.size], ([], []))
            positions.append(at)
            same.append(value or b"")
        for positions, same in by_header.values():
            try:
                schema_id = read_schema_id(same[0])
                schema = self._schema(schema_id)
            except BadRecord as error:
                bad |= dict.fromkeys(positions, error)
                continue
            unread = schema.read(same, np.array(positions, dtype=np.int64), predictions)
            rows = [(positions[row], same[row]) for row in unread]
            self._one_by_one(schema_id, schema, rows, predictions, bad)
        return predictions, bad

    def _one_by_one(
        self,
        schema_id: int,
        schema: _Schema,
        rows: Sequence[tuple[int, bytes]],
        predictions: list[PredictionRows],
        bad: dict[int, BadRecord],
    ) -> None:
        """What the columnar way does not take: the plain codec says why, or puts it in the usual form."""
        for at, value in rows:
            try:
                usual = self._codec.encode(schema_id, self._codec.decode(value).record)
            except BadRecord as error:
                bad[at] = error
                continue
            if schema.read([usual], np.array([at], dtype=np.int64), predictions):
                bad[at] = BadRecord("unsupported-schema", f"schema {schema_id} is not of a prediction")

    def _schema(self, schema_id: int) -> _Schema:
        if schema_id not in self._schemas:
            try:
                self._schemas[schema_id] = _Schema(self._codec.writer_schema(schema_id))
            except (ValueError, KeyError, TypeError) as error:
                reason = f"schema {schema_id} is not of a prediction: {error}"
                raise BadRecord("unsupported-schema", reason) from error
        return self._schemas[schema_id]


class _Schema:
    """One schema of predictions."""

    def __init__(self, schema: Any) -> None:
        fields = {field["name"]: field for field in schema["fields"]}
        if lacking := {EVENT_TIME, *_OUTPUTS, *_IDENTITY, _REQUEST} - fields.keys():
            raise ValueError(f"it has no {', '.join(sorted(lacking))}")
        for name, kind in _TYPES.items():
            if fields[name]["type"] not in kind:
                raise ValueError(f"its {name} is of another type")
        requested = [field["name"] for field in fields[_REQUEST]["type"]["fields"]]
        self._request = [name for name in requested if name not in RESERVED]
        wanted = [EVENT_TIME, *_OUTPUTS, *(f"{_REQUEST}.{name}" for name in self._request)]
        self._decoder = ColumnDecoder(schema, HEADER.size, read=wanted, pieces=_IDENTITY)
        self._identity_schema = fastavro.parse_schema(
            plain({"type": "record", "name": "Identity", "fields": [fields[name] for name in _IDENTITY]})
        )
        self._identities: dict[bytes, PredictionIdentity | None] = {}

    def read(self, values: Sequence[bytes], at: Ints, predictions: list[PredictionRows]) -> list[int]:
        """Adds what can be read to ``predictions``; gives the rows that cannot."""
        columns, _, pieces = self._decoder.decode(values)
        unread = np.flatnonzero(pieces.at < 0).tolist()
        for number, piece in enumerate(pieces.values):
            rows = np.flatnonzero(pieces.at == number)
            identity = self._identity(piece)
            if identity is None:
                unread += rows.tolist()
            elif len(rows):
                every = len(rows) == len(values)
                own = columns if every else {name: column.take(rows) for name, column in columns.items()}
                request = {name: own[f"{_REQUEST}.{name}"] for name in self._request}
                outputs = {name: own[name] for name in _OUTPUTS}
                predictions.append(
                    PredictionRows(identity, at[rows], own[EVENT_TIME].values, request, outputs)
                )
        return sorted(unread)

    def _identity(self, piece: bytes) -> PredictionIdentity | None:
        if piece not in self._identities:
            if len(self._identities) > 1000:
                self._identities.clear()
            try:
                record: Any = fastavro.schemaless_reader(io.BytesIO(piece), self._identity_schema, None)
                if record["arm"] == CHAMPIONS_ARM:
                    record["role"] = "champion"
                identity = PredictionIdentity(*(record[name] for name in PredictionIdentity._fields))
                self._identities[piece] = identity if identity.is_typed else None
            except UnicodeDecodeError:
                self._identities[piece] = None
        return self._identities[piece]
