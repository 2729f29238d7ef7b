"""What a control record has to be beyond its schema, so that no fold meets what it cannot take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.names import MODEL_LENGTH, MODEL_PATTERN
from tailrace.contracts.records.record_types import (
    AlertRecord,
    ClockRecord,
    ContractRecord,
    RolloutRecord,
    TrainingRunRecord,
)
from tailrace.contracts.state.alert_kinds import ALERT_KINDS
from tailrace.contracts.state.contracts import HOLD, RELEASE, WITHDRAW
from tailrace.errors import TailraceError


class RecordRefused(Exception):
    """A record that is readable and cannot be what it should be; its text says why, for people."""


Check = Callable[[Any], None]
"""Raises RecordRefused for a record that nothing can be done with."""

SEQUENCE = "sequence"
"""The fact in a rollout step's evidence that names the sequence of the package that was let in."""
EVENT_TIME = "event_time"
"""The fact in a rollout step's evidence that says how far judged event time had come, in milliseconds."""

RUN_STATES = ("planned", "training", "trained", "published", "rejected", "failed")

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_LARGEST = 2**63 - 1
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_TIMES = ("since", "window_start", "window_end")


def check_model(record: Mapping[str, Any]) -> None:
    """Of a record of any kind: it is about no model, or about one that can be."""
    model = record.get("model")
    if model is not None and (len(model) > MODEL_LENGTH or not re.fullmatch(MODEL_PATTERN, model)):
        raise RecordRefused(f"{model[:100]!r} is no model's name")


def check_step(record: ContractRecord | RolloutRecord | ClockRecord) -> None:
    """Of a contract, rollout or clock: revisions that count from 1."""
    follows, revision = record["follows"], record["revision"]
    if not 0 <= follows < _LARGEST or revision != follows + 1:
        raise RecordRefused(f"revision {revision} after {follows}")


def check_contract(record: ContractRecord) -> None:
    step = record["step"]
    if step in (HOLD, WITHDRAW):
        if not 0 < record["follows"] == record["revision"] < _LARGEST:
            raise RecordRefused(f"revision {record['revision']} after {record['follows']}, to {step}")
    elif step in (None, RELEASE):
        check_step(record)
    else:
        raise RecordRefused(f"{step[:100]!r} is no step of a contract")
    try:
        contract = ModelContract.from_resolved(record["resolved"])
    except (TailraceError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RecordRefused(f"it cannot be read: {error}") from error
    if (contract.model, contract.digest) != (record["model"], record["digest"]):
        raise RecordRefused("it names another model or digest than the contract has")


def check_rollout(record: RolloutRecord) -> None:
    check_step(record)
    for name in (SEQUENCE, EVENT_TIME):
        _integer(record["evidence"], name)
    for name, shared in (("canary", record["canary"]), ("experiment", record["experiment"])):
        if shared is not None and not 0 <= shared["share"] <= 1:
            raise RecordRefused(f"the share of its {name} is {shared['share']}")
    for arm in record["experiment"]["arms"] if record["experiment"] is not None else ():
        if not 0 <= arm["probability"] <= 1:
            raise RecordRefused(f"an arm's probability is {arm['probability']}")


def check_clock(record: ClockRecord) -> None:
    check_step(record)
    if record["owner"] not in ("wall", "replay"):
        raise RecordRefused(f"{record['owner'][:100]!r} is neither wall nor replay")


def check_alert(record: AlertRecord) -> None:
    kind = ALERT_KINDS.get(record["kind"])
    if kind is None or record["service"] not in kind.services:
        raise RecordRefused(f"{record['service'][:100]} raises no alert {record['kind'][:100]}")
    if record["state"] not in ("raised", "resolved"):
        raise RecordRefused(f"{record['state'][:100]!r} is neither raised nor resolved")
    for name in _TIMES:
        _integer(record["detail"], name)


def check_run(record: TrainingRunRecord) -> None:
    if record["state"] not in RUN_STATES:
        raise RecordRefused(f"{record['state'][:100]!r} is no state of a training run")
    if not _RUN_ID.fullmatch(record["run_id"]):
        raise RecordRefused(f"{record['run_id'][:100]!r} is no training run's id")


def _integer(facts: Mapping[str, str], name: str) -> None:
    text = facts.get(name)
    if text is not None and (not _NUMBER.fullmatch(text) or abs(int(text)) > _LARGEST):
        raise RecordRefused(f"{name} is {text[:100]!r}, not a whole number")
