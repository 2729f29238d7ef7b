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
"""A request's key in the store, and a prediction; known from its event time, as far as it can be said without the
stream time of its partition.
"""


def read_predictions(lane: LaneContracts, stream: int, values: Sequence[bytes]) -> list[Answer | BadRecord]:
    """The predictions, in their order.

    Raises:
        Unavailable: the registry is away, or a contract has not been heard of.
    """
    answers: list[Answer | BadRecord | None] = [None] * len(values)
    groups: dict[bytes, list[int]] = {}
    for at, value in enumerate(values):
        groups.setdefault(value[: HEADER.size], []).append(at)
    for header, places in groups.items():
        _read_columns(lane, stream, header, places, values, answers)
    return [_read_plain(lane, stream, values[at]) if a is None else a for at, a in enumerate(answers)]


def _read_columns(
    lane: LaneContracts,
    stream: int,
    header: bytes,
    places: list[int],
    values: Sequence[bytes],
    answers: list[Answer | BadRecord | None],
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
    read = [columns[name].values for name in READ]
    lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in read]
    for at, which, name, request_id, key, time, *source in zip(
        places, pieces.at.tolist(), *lists, strict=True
    ):
        if which >= 0 and (common := commons[which]) is not None:
            prefix, version, contract = common
            body, where = values[at][HEADER.size :], (source[0], source[1])
            prediction = Prediction(stream, version, name, key, time, time, where, contract, body)
            answers[at] = prefix + request_id, prediction


def _own(lane: LaneContracts, schema_id: int, piece: bytes) -> tuple[bytes, int, str] | None:
    """The prefix of the requests' keys, version and contract; None where the plain way is to say what is wrong."""
    try:
        model, at = read_text(piece, 0)
        version, at = read_long(piece, at)
        _, at = read_text(piece, at)
        contract, _ = read_text(piece, at)
        plan = lane.plan(contract)
    except (BadRecord, UnicodeDecodeError):
        return None
    if not plan.is_own(schema_id) or plan.model != model:
        return None
    return request_key(model, b""), version, contract


def _read_plain(lane: LaneContracts, stream: int, value: bytes) -> Answer | BadRecord:
    """One prediction by the plain codec, in whatever schema it was written."""
    try:
        digest: Any = lane.codec.decode(value).record.get("contract_digest")
        plan = lane.plan(str(digest))
        record = lane.codec.decode(value, plan.prediction_schema).record
        if record["model"] != plan.model:
            reason = f"contract {str(digest)[:12]} is not of the model it names"
            raise BadRecord("unknown-contract", reason, "model")
        body = lane.codec.encode(plan.prediction_schema_id, record)[HEADER.size :]
    except BadRecord as bad:
        return bad
    prediction_id, key, time = record["prediction_id"].encode(), record["key"].encode(), record["event_time"]
    source, contract = (record["source"]["partition"], record["source"]["offset"]), plan.applied.digest
    prediction = Prediction(stream, record["version"], prediction_id, key, time, time, source, contract, body)
    return request_key(record["model"], record["request_id"].encode()), prediction
