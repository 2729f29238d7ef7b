"""Reading labels and actions: which request each is about, when, and what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from tailrace.contracts.json_input import parse_object
from tailrace.joiner.contract_plan import ContractPlan
from tailrace.joiner.label_value import encode_label
from tailrace.joiner.match import LABEL, Said
from tailrace.kit.avro_bytes import NULL, SOME, text
from tailrace.kit.codec import Codec, is_json, read_schema_id
from tailrace.kit.errors import BadRecord
from tailrace.kit.messages import Message, Source
from tailrace.kit.sources import REQUEST_ID, truth_key

MODEL = "model"
REKEYED = "tailrace-rekeyed"
"""The header of a record that was forwarded to its partition: JSON, see `Forwarded`."""


class Read(NamedTuple):
    """A label or an action: about which request of which model, under which key.

    ``said`` has it as its message has it; whether it is late is known only beside its partition's clock.
    """

    plan: ContractPlan
    request_id: bytes
    key: bytes
    said: Said


class Forwarded(NamedTuple):
    """What a forwarded record carries of the message that it copies, whose ``key`` may be any bytes or none."""

    topic: str
    partition: int
    offset: int
    appended: int
    effective: int
    late: bool
    key: bytes | None

    def header(self) -> tuple[str, bytes]:
        key = None if self.key is None else self.key.decode("latin-1")
        return REKEYED, json.dumps([*self[:-1], key], separators=(",", ":")).encode()


def forwarded(message: Message) -> Forwarded | None:
    """What the header of a forwarded record says; None where the message has none."""
    for name, content in message.headers() or ():
        if name == REKEYED:
            try:
                *fields, key = json.loads(content)
                return Forwarded._make([*fields, None if key is None else key.encode("latin-1")])
            except (ValueError, TypeError, AttributeError) as error:
                raise BadRecord("corrupt", f"the header {REKEYED} cannot be read: {error}") from error
    return None


class TruthReader:
    """Reads the labels and actions of one lane.

    Args:
        plans: of the models that share the lane; at least one.
    """

    def __init__(self, codec: Codec, plans: Sequence[ContractPlan]) -> None:
        self._codec = codec
        self._plans = plans
        self._namespaces = {plan.namespace: plan for plan in plans}

    def read(self, kind: int, value: bytes, source: Source, appended: int) -> Read:
        """One label or action.

        Args:
            kind: LABEL or ACTION.
            source: its coordinates, those of the original where it was forwarded.
            appended: when it was, in milliseconds; its event time where it names none.

        Raises:
            BadRecord: from the codec, or ``unknown-model``, ``missing-key``, ``missing-request-id``, ``missing``,
                ``not-finite``, ``unseen-category``, ``event-time-ahead``.
            Retry: the registry is away.
        """
        plan, record = self._record(kind, value)
        contract = plan.contract
        given = record.get(contract.event_time.name)
        time = appended if given is None else int(given)
        if time > appended + contract.event_time.skew_ms:
            reason = (
                f"{(time - appended) / 1000:,.0f} s after it was appended; "
                f"{contract.event_time.skew_ms / 1000:,.0f} s are allowed"
            )
            raise BadRecord("event-time-ahead", reason, contract.event_time.name)
        key = truth_key(contract.key.name, record)
        request_id = record.get(REQUEST_ID)
        if not request_id:
            raise BadRecord("missing-request-id", "request_id says which request it is about", REQUEST_ID)
        by = NULL
        if kind == LABEL:
            said = encode_label(contract.target, record.get(contract.target.name))
            if (named := record.get("labelled_by")) is not None:
                by = SOME + text(named)
        else:
            action = record.get("action")
            if action is None:
                raise BadRecord("missing", "action is missing: what was done", "action")
            said = action.encode()
        return Read(plan, request_id.encode(), key.encode(), Said(said, time, *source, by))

    def _record(self, kind: int, value: bytes) -> tuple[ContractPlan, dict[str, Any]]:
        if is_json(value):
            plan = self._addressed(parse_object(value).get(MODEL), None)
            reader = plan.label_json if kind == LABEL else plan.action_json
            return plan, reader.parse(value)
        plans = self._plans
        if len(plans) == 1:
            schema = plans[0].label_schema if kind == LABEL else plans[0].action_schema
            record = self._codec.decode(value, schema).record
            self._addressed(record[MODEL], None)
            return plans[0], record
        writer = self._codec.writer_schema(read_schema_id(value))
        written = writer.get("namespace") if isinstance(writer, dict) else None
        plan = self._addressed(self._codec.decode(value).record.get(MODEL), written)
        schema = plan.label_schema if kind == LABEL else plan.action_schema
        return plan, self._codec.decode(value, schema).record

    def _addressed(self, named: object, namespace: object) -> ContractPlan:
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
