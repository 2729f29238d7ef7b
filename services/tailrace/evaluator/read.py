"""Predictions and outcomes of a batch as columns, contract by contract.

Slices and value see a request as it was received, but for categories that the contract does not know: they are what
it says they count as.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tailrace.avro.codec import Codec
from tailrace.errors import BadRecord
from tailrace.evaluator import findings
from tailrace.evaluator.fields import FieldReader, Fields
from tailrace.evaluator.plan import EvaluationPlan
from tailrace.evaluator.rows import GroundTruth, LoggedAnswers, OutcomeRows, Predicted
from tailrace.evaluator.types import wrong_types
from tailrace.models.rollout_state.fold import CHAMPIONS_ARM
from tailrace.statistics.result import Mask
from tailrace.streaming.records import Message
from tailrace.streaming.watermark_records import EARLIEST_MS

ANSWER = ("score", "predicted_class", "value", "action")
HEAD = (
    *(
        "event_time",
        "version",
        "artifact_digest",
        "contract_digest",
        "role",
        "arm",
        "served_by",
        "served_cause",
    ),
    "latency_ms",
    *ANSWER,
)
OUTCOME = (
    "revision",
    "state",
    "duplicate_of",
    "known_at",
    "late",
    "label",
    "action_taken",
    "before.state",
    "before.label",
    "before.action_taken",
    "champion.version",
    *(f"champion.{name}" for name in ANSWER),
)
PREDICTION = "prediction."
"""Where an outcome has its prediction."""


class OfContract(NamedTuple):
    """What a batch has of one contract; ``outcomes`` is None where it was read from predictions."""

    plan: EvaluationPlan
    predicted: Predicted
    outcomes: OutcomeRows | None


class ReadBatch(NamedTuple):
    """``times`` are event times by position in the batch; ``bad`` says by position what cannot be used."""

    found: list[OfContract]
    times: np.ndarray[Any, np.dtype[np.int64]]
    bad: dict[int, BadRecord]


class EventReader:
    """Reads messages of lanes.

    Args:
        plan_of: the plan of the contract with this digest; None while it is not known.
        fields: the request fields that any contract's slices and value read.
        reads_findings: whether any contract reads what guards found.
    """

    def __init__(
        self,
        codec: Codec,
        plan_of: Callable[[str], EvaluationPlan | None],
        fields: Callable[[], frozenset[str]],
        reads_findings: Callable[[], bool],
    ) -> None:
        self._reader = FieldReader(codec)
        self._plan_of = plan_of
        self._fields = fields
        self._reads_findings = reads_findings

    def read(self, messages: Sequence[Message], lane: str, *, outcomes: bool) -> ReadBatch:
        """Reads outcomes, or predictions, of a lane. Raises `Unavailable` while schemas are not to be had."""
        prefix = PREDICTION if outcomes else ""
        names = [*(OUTCOME if outcomes else ()), *(prefix + name for name in HEAD)]
        fields_of_requests, with_findings = self._fields(), outcomes and self._reads_findings()
        names += [f"{prefix}request.{name}" for name in sorted(fields_of_requests)]
        names += [prefix + name for name in findings.FIELDS] if with_findings else []
        sets = prefix + findings.SET if with_findings else None
        bad: dict[int, BadRecord] = {}
        times = np.zeros(len(messages), dtype=np.int64)
        found = []
        for at, fields in self._reader.read(messages, names, bad, sets):
            if untyped := wrong_types(fields, prefix):
                bad |= {at[row]: error for row, error in untyped.items()}
                good = [row for row in range(len(at)) if row not in untyped]
                fields, at = _take(fields, good), [at[row] for row in good]
            for digest, rows in _by_digest(fields[f"{prefix}contract_digest"]):
                some, positions = _take(fields, rows), [at[row] for row in rows]
                plan = self._plan_of(digest)
                # A contract may have been found that reads others as well.
                if (
                    self._fields() != fields_of_requests
                    or (outcomes and self._reads_findings()) != with_findings
                ):
                    return self.read(messages, lane, outcomes=outcomes)
                if plan is None or plan.contract.lane != lane:
                    reason = f"no contract on {lane} has the digest {digest}"
                    bad |= dict.fromkeys(positions, BadRecord("unknown-contract", reason))
                    continue
                if plan.contract.task == "multiclass":  # probabilities are maps
                    maps = [f"{prefix}probabilities", *(["champion.probabilities"] if outcomes else [])]
                    maps += [] if sets is None else [sets]
                    positions, some = self._reader.read_plainly(messages, positions, [*names, *maps], bad)
                    untyped = wrong_types(some, prefix)
                else:
                    untyped = {}
                appended = [messages[row].timestamp()[1] for row in positions]
                wrong = _ahead(plan, some[f"{prefix}event_time"], appended)
                wrong |= _wrong_labels(plan, some) if outcomes else {}
                wrong |= untyped
                if wrong:
                    bad |= {positions[row]: error for row, error in wrong.items()}
                    good = [row for row in range(len(positions)) if row not in wrong]
                    some, positions = _take(some, good), [positions[row] for row in good]
                predicted = _predicted(plan, positions, some, prefix)
                times[predicted.at] = predicted.event_times
                found.append(
                    OfContract(plan, predicted, _outcomes(plan, predicted, some) if outcomes else None)
                )
        return ReadBatch(found, times, bad)


def _by_digest(digests: list[str]) -> list[tuple[str, list[int]]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        rows[digest].append(row)
    return sorted(rows.items())


def _take(fields: Fields, rows: list[int]) -> Fields:
    if all(len(column) == len(rows) for column in fields.values()):
        return fields
    return {name: [column[row] for row in rows] for name, column in fields.items()}


def _ahead(plan: EvaluationPlan, event_times: list[int], appended: list[int]) -> dict[int, BadRecord]:
    """One time from the future would close every window, and make all that follows late; and there is a first year."""
    skew = plan.contract.event_time.skew_ms
    reason = "the event time is further ahead of the append time than the contract's skew"
    return {
        row: BadRecord("event-time-ahead", reason, "event_time")
        for row, (time, limit) in enumerate(zip(event_times, appended, strict=True))
        if not EARLIEST_MS <= time <= limit + skew
    }


def _wrong_labels(plan: EvaluationPlan, fields: Fields) -> dict[int, BadRecord]:
    target = plan.contract.target
    wrong = {}
    if target.type == "boolean":
        return {}
    for name in ("label", "before.label"):
        for row, label in enumerate(fields[name]):
            if label is None:
                continue
            if target.type == "number" and not (isinstance(label, float | int) and math.isfinite(label)):
                wrong[row] = BadRecord("not-finite", f"the label is {label}", target.name)
            elif target.type == "category" and label not in plan.class_numbers:
                wrong[row] = BadRecord("unseen-category", f"there is no class {label!r}", target.name)
    return wrong


def _predicted(plan: EvaluationPlan, at: list[int], fields: Fields, prefix: str) -> Predicted:
    request = {name: fields[f"{prefix}request.{name}"] for name in plan.fields}
    return Predicted(
        at=np.array(at, dtype=np.int64),
        event_times=np.array(fields[f"{prefix}event_time"], dtype=np.int64),
        version=fields[f"{prefix}version"],
        role=fields[f"{prefix}role"],
        artifact=fields[f"{prefix}artifact_digest"],
        champions_arm=np.array([arm == CHAMPIONS_ARM for arm in fields[f"{prefix}arm"]], dtype=np.bool_),
        slow=_slow(plan, fields[f"{prefix}latency_ms"]),
        fallback=np.array(
            [
                by != "model" and cause != "off"
                for by, cause in zip(
                    fields[f"{prefix}served_by"], fields[f"{prefix}served_cause"], strict=True
                )
            ],
            dtype=np.bool_,
        ),
        answers=_answers(plan, fields, prefix, range(len(at))),
        fields=plan.frame(request, len(at)),
    )


def _slow(plan: EvaluationPlan, latency_ms: list[float]) -> Mask:
    level = plan.contract.service_levels.latency_p99_ms
    found: Mask = np.array(latency_ms, dtype=np.float64) > (math.inf if level is None else level)
    return found


def _outcomes(plan: EvaluationPlan, predicted: Predicted, fields: Fields) -> OutcomeRows:
    def labels(given: list[Any]) -> list[Any]:
        if plan.contract.target.type != "boolean":
            return given
        return [None if label is None else bool(label) for label in given]

    replacing = [row for row, state in enumerate(fields["before.state"]) if state is not None]
    before = {
        name: [fields[f"before.{name}"][row] for row in replacing]
        for name in ("state", "label", "action_taken")
    }
    answered = [row for row, action in enumerate(fields["champion.action"]) if action is not None]
    against = np.full(len(predicted.at), -1, dtype=np.int64)
    against[answered] = [fields["champion.version"][row] for row in answered]
    came_late = zip(fields["late"], fields["state"], strict=True)
    late = np.array([bool(late) and state == "labelled" for late, state in came_late], dtype=np.bool_)
    for row, state, label in zip(replacing, before["state"], before["label"], strict=True):
        late[row] &= (
            state != "labelled" or label != fields["label"][row]
        )  # else it is only the action that is new
    return OutcomeRows(
        predicted=predicted,
        known_at=np.array(fields["known_at"], dtype=np.int64),
        first=np.array([revision == 1 for revision in fields["revision"]], dtype=np.bool_),
        duplicate=np.array([other is not None for other in fields["duplicate_of"]], dtype=np.bool_),
        late=late,
        truth=GroundTruth(fields["state"], labels(fields["label"]), fields["action_taken"]),
        replacing=np.array(replacing, dtype=np.int64),
        before=GroundTruth(before["state"], labels(before["label"]), before["action_taken"]),
        against=against,
        champion=_answers(plan, fields, "champion.", answered),
    )


def _answers(plan: EvaluationPlan, fields: Fields, prefix: str, rows: Sequence[int]) -> LoggedAnswers:
    def column(name: str) -> list[Any]:
        values = fields[prefix + name]
        return values if len(rows) == len(values) else [values[row] for row in rows]

    classes = plan.contract.classes if plan.contract.task == "multiclass" else []
    probabilities = np.full((len(rows), len(classes)), np.nan)
    if classes:
        for row, said in enumerate(column("probabilities")):
            if said:
                probabilities[row] = [said.get(name, 0.0) for name in classes]
    return LoggedAnswers(
        score=np.array(column("score"), dtype=np.float64),  # NaN where None
        probabilities=probabilities,
        chosen=np.array(
            [plan.class_numbers.get(name, -1) for name in column("predicted_class")], dtype=np.int64
        ),
        value=np.array(column("value"), dtype=np.float64),
        action=column("action"),
        findings=findings.findings_of(
            column("served_by"),
            column("guarded"),
            column(findings.SET),
            column("interval_low"),
            column("interval_high"),
        )
        if plan.reads_findings and prefix + findings.SET in fields
        else None,
    )
