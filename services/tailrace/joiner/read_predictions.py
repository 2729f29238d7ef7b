"""Reads the predictions of a batch: of each, whose answer it is and to what; the rest stays bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tailrace.avro.codec import HEADER, MAGIC
from tailrace.avro.encoding import read_long, read_text
from tailrace.errors import BadRecord
from tailrace.joiner.lane_contracts import READ, LaneContracts
from tailrace.joiner.match import Prediction
from tailrace.joiner.store import request_key

Answer = tuple[bytes, Prediction]
"""A request's key in the store, and a prediction; known from its event time, as far as it can be said without its
partition's clock.
"""


def read_predictions(lane: LaneContracts, stream: int, values: Sequence[bytes]) -> list[Answer | BadRecord]:
    """The predictions, in their order.

    Raises:
        Unavailable: the registry is away, or a contract has not been heard of.
    """
    found: list[Answer | BadRecord | None] = [None] * len(values)
    groups: dict[bytes, list[int]] = {}
    for at, value in enumerate(values):
        groups.setdefault(value[: HEADER.size], []).append(at)
    for header, places in groups.items():
        _read_columns(lane, stream, header, places, values, found)
    return [_read_plain(lane, stream, values[at]) if one is None else one for at, one in enumerate(found)]


def _read_columns(
    lane: LaneContracts,
    stream: int,
    header: bytes,
    places: list[int],
    values: Sequence[bytes],
    found: list[Answer | BadRecord | None],
) -> None:
    """Reads what can be read by columns; leaves the rest as it is."""
    if len(header) < HEADER.size or header[0] != MAGIC:
        return
    schema_id = HEADER.unpack(header)[1]
    decoder = lane.prediction_decoder(schema_id)
    if decoder is None:
        return
    columns, _, pieces = decoder.decode([values[at] for at in places])
    commons = [_own(lane, schema_id, piece) for piece in pieces.values]
    rows = zip(
        places,
        pieces.at.tolist(),
        *(
            column.tolist() if isinstance(column := columns[name].values, np.ndarray) else column
            for name in READ
        ),
        strict=True,
    )
    for at, which, prediction_id, request_id, key, time, partition, offset in rows:
        if which >= 0 and (common := commons[which]) is not None:
            prefix, version, contract = common
            body = values[at][HEADER.size :]
            source = (partition, offset)
            found[at] = (
                prefix + request_id,
                Prediction(stream, version, prediction_id, key, time, time, source, contract, body),
            )


def _own(lane: LaneContracts, schema_id: int, piece: bytes) -> tuple[bytes, int, str] | None:
    """The prefix of the requests' keys, version and contract; None where the plain way is to say what is wrong."""
    try:
        model, version, contract = _common(piece)
        plan = lane.plan(contract)
    except (BadRecord, UnicodeDecodeError):
        return None
    return (
        (request_key(model, b""), version, contract)
        if plan.is_own(schema_id) and plan.model == model
        else None
    )


def _common(piece: bytes) -> tuple[str, int, str]:
    model, at = read_text(piece, 0)
    version, at = read_long(piece, at)
    _, at = read_text(piece, at)
    contract, at = read_text(piece, at)
    return model, version, contract


def _read_plain(lane: LaneContracts, stream: int, value: bytes) -> Answer | BadRecord:
    """One prediction by the plain codec, in whatever schema it was written."""
    try:
        digest: Any = lane.codec.decode(value).record.get("contract_digest")
        plan = lane.plan(str(digest))
        record = lane.codec.decode(value, plan.prediction_schema).record
        if record["model"] != plan.model:
            raise BadRecord(
                "unknown-contract", f"contract {str(digest)[:12]} is not of the model it names", "model"
            )
        body = lane.codec.encode(plan.prediction_schema_id, record)[HEADER.size :]
    except BadRecord as bad:
        return bad
    return request_key(record["model"], record["request_id"].encode()), Prediction(
        stream,
        record["version"],
        record["prediction_id"].encode(),
        record["key"].encode(),
        record["event_time"],
        record["event_time"],
        (record["source"]["partition"], record["source"]["offset"]),
        plan.applied.digest,
        body,
    )
