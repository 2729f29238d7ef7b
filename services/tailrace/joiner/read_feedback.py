"""Reads labels and actions: which request each is about, when, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tailrace.avro.codec import HEADER, MAGIC, Codec, as_text, is_json, read_schema_id
from tailrace.avro.encoding import NULL, SOME, long, sized, text
from tailrace.contracts import instants
from tailrace.contracts.records.json_input import parse_object
from tailrace.errors import BadRecord
from tailrace.joiner.contract_plan import JoiningPlan
from tailrace.joiner.label_value import encode_label, encode_labels
from tailrace.joiner.match import LABEL, FeedbackValue
from tailrace.joiner.store import request_key
from tailrace.streaming.ids import REQUEST_ID, truth_key

MODEL, LABELLED_BY, ACTION_FIELD = "model", "labelled_by", "action"


class ReceivedFeedback(NamedTuple):
    """A label or an action: about which request (its key in the store), under which key, when by its own account.

    Whether it is late is known only beside its partition's stream time: ``content`` has it not late.
    """

    plan: JoiningPlan
    request: bytes
    key: bytes
    time: int
    content: FeedbackValue


class FeedbackPlaces(NamedTuple):
    """Where labels or actions came: topic and partition; of each its offset, and when it was appended, in ms."""

    topic: str
    partition: int
    offsets: Sequence[int]
    appended: Sequence[int]


class FeedbackReader:
    """Reads the labels and actions of one lane.

    Args:
        plans: of the models that share the lane; at least one.
    """

    def __init__(self, codec: Codec, plans: Sequence[JoiningPlan]) -> None:
        self._codec = codec
        self._plans = plans
        self._namespaces = {plan.namespace: plan for plan in plans}

    def read(
        self, kind: int, values: Sequence[bytes], where: FeedbackPlaces
    ) -> list[ReceivedFeedback | BadRecord]:
        """Labels, or actions, in their order.

        Args:
            kind: LABEL or ACTION.

        Raises:
            Unavailable: the registry is away.
        """
        received: list[ReceivedFeedback | BadRecord | None] = [None] * len(values)
        groups: dict[bytes, list[int]] = {}
        for at, value in enumerate(values):
            groups.setdefault(value[: HEADER.size], []).append(at)
        for header, places in groups.items():
            self._read_columns(kind, header, places, values, where, received)
        return [
            self._read_plain(kind, values[at], where, at) if feedback is None else feedback
            for at, feedback in enumerate(received)
        ]

    # By columns ---

    def _read_columns(
        self,
        kind: int,
        header: bytes,
        places: list[int],
        values: Sequence[bytes],
        where: FeedbackPlaces,
        received: list[ReceivedFeedback | BadRecord | None],
    ) -> None:
        """Reads what is as it should be; leaves the rest as it is."""
        plan = self._writer_is(kind, header)
        if plan is None:
            return
        columns, good, _ = plan.formats[kind].decoder.decode([values[at] for at in places])
        contract = plan.contract
        given, present = columns[contract.event_time.name]
        appended = np.array([where.appended[at] for at in places], dtype=np.int64)
        times = given if present is None else np.where(present, given, appended)
        fine = times <= appended + contract.event_time.skew_ms
        if not contract.event_time.early_1970:
            in_seconds = (times >= 0) & (times <= instants.SECONDS_UNTIL_MS)
            fine &= ~(in_seconds if present is None else in_seconds & present)
        if good is not None:
            fine &= good
        if kind == LABEL:
            contents = encode_labels(contract.target, columns[contract.target.name])
            by = [NULL if name is None else SOME + sized(name) for name in columns[LABELLED_BY].values]
        else:
            contents, by = columns[ACTION_FIELD].values, [NULL] * len(places)
        ids, keys, models = (
            columns[REQUEST_ID].values,
            columns[contract.key.name].keys(),
            columns[MODEL].values,
        )
        prefix, own = request_key(plan.model, b""), plan.model.encode()
        begin, place = f"{where.topic}/{where.partition}/", SOME + text(where.topic) + long(where.partition)
        dated = [True] * len(places) if present is None else present.tolist()
        rows = zip(places, fine.tolist(), ids, keys, models, times.tolist(), dated, contents, by, strict=True)
        for at, is_fine, request_id, key, model, time, is_dated, value, who in rows:
            if not (is_fine and request_id and key and value) or (model is not None and model != own):
                continue
            offset = where.offsets[at]
            written = place + long(offset)
            if kind == LABEL:
                written = SOME + long(time) + written + who
            content = FeedbackValue(value, False, f"{begin}{offset}", written, time, is_dated)
            received[at] = ReceivedFeedback(plan, prefix + request_id, key, time, content)

    def _writer_is(self, kind: int, header: bytes) -> JoiningPlan | None:
        """The model whose schema the header names, byte for byte."""
        if len(header) < HEADER.size or header[0] != MAGIC:
            return None
        schema_id = HEADER.unpack(header)[1]
        for plan in self._plans:
            try:
                if self._codec.copies(schema_id, plan.formats[kind].schema):
                    return plan
            except BadRecord:  # no such schema, or none that can be used: the plain way says so by row
                return None
        return None

    # One by one ---

    def _read_plain(
        self, kind: int, value: bytes, where: FeedbackPlaces, at: int
    ) -> ReceivedFeedback | BadRecord:
        try:
            return self._read_one(kind, value, where, at)
        except BadRecord as bad:
            return bad

    def _read_one(self, kind: int, value: bytes, where: FeedbackPlaces, at: int) -> ReceivedFeedback:
        plan, record = self._record(kind, value)
        contract = plan.contract
        topic, partition, offset, appended = *where[:2], where.offsets[at], where.appended[at]
        event_time = record.get(contract.event_time.name)
        time = appended if event_time is None else int(event_time)
        if time > appended + contract.event_time.skew_ms:
            reason = instants.ahead(time, appended, contract.event_time.skew_ms)
            raise BadRecord("event-time-ahead", reason, contract.event_time.name)
        if event_time is not None and not contract.event_time.early_1970 and instants.is_in_seconds(time):
            reason = instants.in_seconds(time, contract.event_time.name)
            raise BadRecord("event-time-in-seconds", reason, contract.event_time.name)
        key = truth_key(contract.key.name, record)
        request_id = record.get(REQUEST_ID)
        if not request_id:
            raise BadRecord("missing-request-id", "request_id says which request it is about", REQUEST_ID)
        source = SOME + text(topic) + long(partition) + long(offset)
        if kind == LABEL:
            value = encode_label(contract.target, record.get(contract.target.name))
            named = record.get(LABELLED_BY)
            written = SOME + long(time) + source + (NULL if named is None else SOME + text(named))
        else:
            action = record.get(ACTION_FIELD)
            if not action:
                raise BadRecord("missing", "action is missing: what was done", ACTION_FIELD)
            value, written = action.encode(), source
        place = f"{topic}/{partition}/{offset}"
        content = FeedbackValue(value, False, place, written, time, event_time is not None)
        return ReceivedFeedback(
            plan, request_key(plan.model, request_id.encode()), key.encode(), time, content
        )

    def _record(self, kind: int, value: bytes) -> tuple[JoiningPlan, dict[str, Any]]:
        if is_json(value):
            plan = self._addressed(parse_object(value).get(MODEL), None)
            return plan, plan.formats[kind].json_input.parse(value)
        if len(self._plans) == 1:
            (plan,) = self._plans
            record = self._codec.decode(value, plan.formats[kind].schema).record
            self._addressed(record[MODEL], None)
            return plan, record
        writer = self._codec.writer_schema(read_schema_id(value))
        written = writer.get("namespace") if isinstance(writer, dict) else None
        plan = self._addressed(as_text(self._codec.decode(value).record.get(MODEL)), written)
        return plan, self._codec.decode(value, plan.formats[kind].schema).record

    def _addressed(self, named: object, namespace: object) -> JoiningPlan:
        """The model that is named; where none is, the lane's only one, or the one whose schema it is."""
        known = ", ".join(plan.model for plan in self._plans)
        if named is None:
            plan = self._plans[0] if len(self._plans) == 1 else self._namespaces.get(str(namespace))
            if plan is None:
                raise BadRecord("unknown-model", f"it has to name its model: {known}", MODEL)
            return plan
        for plan in self._plans:
            if plan.model == named:
                return plan
        raise BadRecord("unknown-model", f"{str(named)[:100]!r} is not one of {known}", MODEL)
