"""The first step: what came in, as columns by model.

Avro in the schema of the contract in force is decoded column-wise, and its bytes are kept to stand in the
prediction. Everything else (JSON, other schemas, rows that the fast way declines) goes through the plain
codec one by one, is written anew in the contract's schema and then takes the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tailrace.avro.codec import as_text, is_json, read_schema_id
from tailrace.avro.columns.bytes_column import UNKNOWN, BytesColumn
from tailrace.avro.columns.decoder import Ints
from tailrace.avro.columns.decoder_kernels import schema_ids
from tailrace.contracts.records.input_size import is_large, too_large
from tailrace.contracts.records.json_input import parse_object
from tailrace.errors import BadRecord
from tailrace.scorer.plans import ServingPlan
from tailrace.scorer.rows import Requests
from tailrace.streaming.records import Message
from tailrace.streaming.watermark_records import watermark_time

MODEL = "model"


class Reading(NamedTuple):
    """What a batch holds; positions are those in the batch."""

    requests: list[Requests]
    watermarks: dict[int, int]
    """Event time in ms of each watermark record."""
    bad: dict[int, BadRecord]


class _Row(NamedTuple):
    at: int
    topic: str
    value: bytes


def read_requests(
    batch: Sequence[Message], topics: Sequence[str], lanes: Mapping[str, Sequence[ServingPlan]]
) -> Reading:
    """Reads a batch.

    Args:
        batch: messages of request topics.
        topics: the topic of each.
        lanes: by request topic, the contracts of the models that share it.

    Raises:
        Unavailable: the registry is away, and a schema id was never seen before.
    """
    reading = Reading([], {}, {})
    payloads = [b"" if is_large(message) else message.value() for message in batch]
    at = np.arange(len(batch))
    reading.bad.update(
        {place: too_large(message) for place, message in enumerate(batch) if is_large(message)}
    )
    if None in payloads or reading.bad:
        rest = [n for n, value in enumerate(payloads) if value is not None and n not in reading.bad]
        at = np.array(rest, dtype=np.int64)
        _read_watermarks(reading, batch, payloads)
        payloads = [payloads[place] for place in rest]
    values = BytesColumn.of([value for value in payloads if value is not None])
    ids = schema_ids(values.bytes, values.begins, values.ends)
    plain: list[_Row] = []
    for topic, schema_id, rows in _groups(topics, at, ids):
        undecoded = rows
        if schema_id >= 0:
            same = values if len(rows) == len(values) else values.take(rows)
            undecoded = rows[_read_columns(reading, lanes[topic], schema_id, at[rows], same)]
        plain += [_Row(int(at[row]), topic, values[row]) for row in undecoded.tolist()]
    _read_plain(reading, lanes, sorted(plain))
    return reading


def _read_watermarks(reading: Reading, batch: Sequence[Message], values: Sequence[bytes | None]) -> None:
    for at, (message, value) in enumerate(zip(batch, values, strict=True)):
        if value is None:
            time = watermark_time(message)
            if time is None:
                reading.bad[at] = BadRecord("empty", "the message has neither a value nor a watermark")
            else:
                reading.watermarks[at] = time


def _groups(topics: Sequence[str], at: Ints, ids: Ints) -> Iterator[tuple[str, int, Ints]]:
    """Which values have one topic and one schema id, by the first of each; the id is -1 where there is none."""
    several = set(topics)
    numbers = {topic: number for number, topic in enumerate(several)}
    which = np.zeros(len(ids), dtype=np.int64)
    if len(several) > 1:
        which = np.array([numbers[topics[place]] for place in at.tolist()], dtype=np.int64)
    codes = (which << 33) + ids
    if len(codes) and (codes == codes[0]).all():
        yield topics[int(at[0])], int(ids[0]), np.arange(len(codes))
        return
    _, firsts = np.unique(codes, return_index=True)
    for first in np.sort(firsts).tolist():
        yield topics[int(at[first])], int(ids[first]), np.flatnonzero(codes == codes[first])


def _read_columns(
    reading: Reading, plans: Sequence[ServingPlan], schema_id: int, positions: Ints, values: BytesColumn
) -> Ints:
    """Reads the rows of one schema id column-wise; gives those that have to take the plain way."""
    plan = _writer_is(plans, schema_id)
    if plan is None:
        return np.arange(len(values))
    columns, good, _ = plan.decoder.decode(values)
    named = columns[MODEL]
    if named.present is None or named.present.any():
        is_own = named.values.codes(BytesColumn.of([plan.model.encode()])) != UNKNOWN
        good = is_own if good is None else good & is_own
    requests = Requests(plan, positions, values, columns)
    if good is None or good.all():
        reading.requests.append(requests)
        return np.zeros(0, dtype=np.int64)
    if good.any():
        reading.requests.append(requests.take(np.flatnonzero(good)))
    return np.flatnonzero(~good)


def _writer_is(plans: Sequence[ServingPlan], schema_id: int) -> ServingPlan | None:
    """The model whose request schema this id is of, byte for byte."""
    for plan in plans:
        try:
            if plan.codec.copies(schema_id, plan.request_schema):
                return plan
        except BadRecord:  # no such schema, or none that can be used: the plain way says so by row
            return None
    return None


def _read_plain(reading: Reading, lanes: Mapping[str, Sequence[ServingPlan]], rows: Iterable[_Row]) -> None:
    by_plan: dict[int, tuple[ServingPlan, list[_Row]]] = {}
    for row in rows:
        try:
            plan, record = _record(lanes[row.topic], row.value)
            value = plan.codec.encode(plan.request_schema_id, record)
        except BadRecord as bad:
            reading.bad[row.at] = bad
            continue
        by_plan.setdefault(id(plan), (plan, []))[1].append(row._replace(value=value))
    for plan, encoded in by_plan.values():
        values = BytesColumn.of([row.value for row in encoded])
        columns, good, _ = plan.decoder.decode(values)
        assert good is None, "the codec's own output must decode"
        at = np.array([row.at for row in encoded], dtype=np.int64)
        reading.requests.append(Requests(plan, at, values, columns))


def _record(plans: Sequence[ServingPlan], value: bytes) -> tuple[ServingPlan, dict[str, Any]]:
    """The request and the model that it is to, by the plain codec."""
    if is_json(value):
        plan = _addressed(plans, parse_object(value).get(MODEL), lambda: None)
        return plan, plan.json_input.parse(value)
    codec = plans[0].codec
    if len(plans) == 1:
        record = codec.decode(value, plans[0].request_schema).record
        _addressed(plans, record[MODEL], lambda: None)
        return plans[0], record
    writer = codec.writer_schema(read_schema_id(value))
    written = writer.get("namespace") if isinstance(writer, dict) else None
    named = as_text(codec.decode(value).record.get(MODEL))
    plan = _addressed(plans, named, lambda: next((p for p in plans if p.namespace == written), None))
    return plan, codec.decode(value, plan.request_schema).record


def _addressed(
    plans: Sequence[ServingPlan], named: object, by_schema: Callable[[], ServingPlan | None]
) -> ServingPlan:
    """The model that a request names; where it names none, the lane's only one, or the one of its schema."""
    known = ", ".join(plan.model for plan in plans)
    if named is None:
        plan = plans[0] if len(plans) == 1 else by_schema()
        if plan is None:
            raise BadRecord("unknown-model", f"the request has to name its model: {known}", MODEL)
        return plan
    for plan in plans:
        if plan.model == named:
            return plan
    raise BadRecord("unknown-model", f"{str(named)[:100]!r} is not one of {known}", MODEL)
