"""Predictions and outcomes of a batch as columns, contract by contract.

Slices and value see a request as it was received, but for categories that the contract does not know: they are what
it says they count as.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tailrace.avro.codec import Codec
from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.categorical_column import UNKNOWN
from tailrace.avro.columns.decoder import Column
from tailrace.errors import BadRecord
from tailrace.evaluator import findings
from tailrace.evaluator.field_columns import Fields, integers, numbers, present, texts, truths, value_at
from tailrace.evaluator.fields import FieldReader
from tailrace.evaluator.plan import EvaluationPlan
from tailrace.evaluator.rows import GroundTruth, LoggedAnswers, OutcomeRows, Predicted
from tailrace.evaluator.types import wrong_types
from tailrace.models.rollout_state.fold import CHAMPIONS_ARM
from tailrace.statistics.result import Floats, Ints
from tailrace.streaming.records import Message
from tailrace.windows.kinds import ReadRows
from tailrace.windows.skew import ahead_of_append

ANSWER = ("score", "predicted_class", "value", "action")
IDENTITY = ("event_time", "version", "artifact_digest", "contract_digest", "role", "arm")
HEAD = (*IDENTITY, "served_by", "served_cause", "latency_ms", *ANSWER)
REVISION = ("revision", "state", "duplicate_of", "known_at", "late", "label", "action_taken")
BEFORE = ("before.state", "before.label", "before.action_taken")
OUTCOME = (*REVISION, *BEFORE, "champion.version", *(f"champion.{name}" for name in ANSWER))
PREDICTION = "prediction."
"""Where an outcome has its prediction."""


class OfContract(NamedTuple):
    """What a batch has of one contract; ``outcomes`` is None where it was read from predictions."""

    plan: EvaluationPlan
    predicted: Predicted
    outcomes: OutcomeRows | None


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

    def read(self, messages: Sequence[Message], lane: str, *, outcomes: bool) -> ReadRows:
        """Outcomes, or predictions, of a lane (`OfContract`). Raises `Unavailable` while schemas are not to be had."""
        prefix = PREDICTION if outcomes else ""
        names = [*(OUTCOME if outcomes else ()), *(prefix + name for name in HEAD)]
        requested, with_findings = self._fields(), outcomes and self._reads_findings()
        names += [f"{prefix}request.{name}" for name in sorted(requested)]
        names += [prefix + name for name in findings.FIELDS] if with_findings else []
        sets = prefix + findings.SET if with_findings else None
        bad: dict[int, BadRecord] = {}
        times = np.zeros(len(messages), dtype=np.int64)
        contracts = []
        values = BytesColumn.of([message.value() or b"" for message in messages])
        for at, fields in self._reader.read(values, names, bad, sets):
            rows = _Rows(at, fields).without(wrong_types(fields, prefix), bad)
            for digest, part in rows.by_digest(f"{prefix}contract_digest"):
                plan = self._plan_of(digest)
                # A contract may have been found that reads others as well.
                if (self._fields(), outcomes and self._reads_findings()) != (requested, with_findings):
                    return self.read(messages, lane, outcomes=outcomes)
                if plan is None or plan.contract.lane != lane:
                    reason = f"no contract on {lane} has the digest {digest}"
                    bad |= dict.fromkeys(part.at.tolist(), BadRecord("unknown-contract", reason))
                    continue
                if plan.contract.task == "multiclass":
                    part = self._with_probabilities(part, values, prefix, bad)
                part_messages = [messages[at] for at in part.at.tolist()]
                event_times = integers(part.fields[f"{prefix}event_time"])
                ahead = ahead_of_append(event_times, part_messages, plan.contract.event_time.skew_ms)
                part = part.without(ahead | (_wrong_labels(plan, part.fields) if outcomes else {}), bad)
                predicted = _predicted(plan, part.at, _within(part.fields, prefix))
                times[predicted.at] = predicted.event_times
                known = _outcomes(plan, predicted, part.fields) if outcomes else None
                contracts.append(OfContract(plan, predicted, known))
        return ReadRows(times, bad, contracts)

    def _with_probabilities(
        self, rows: _Rows, values: BytesColumn, prefix: str, bad: dict[int, BadRecord]
    ) -> _Rows:
        """The rows with the probabilities of several classes, which are maps, and make no column."""
        names = [f"{prefix}probabilities", *(["champion.probabilities"] if prefix else [])]
        at, fields = self._reader.read_plainly(values, rows.at, names, bad)
        kept = rows.take(np.flatnonzero(np.isin(rows.at, at)))
        return _Rows(at, {**kept.fields, **fields}).without(wrong_types(fields, prefix), bad)


class _Rows(NamedTuple):
    """Where in the batch rows are, and their fields."""

    at: Ints
    fields: Fields

    def take(self, rows: Ints) -> _Rows:
        if len(rows) == len(self.at):
            return self
        return _Rows(self.at[rows], {name: column.take(rows) for name, column in self.fields.items()})

    def without(self, problems: Mapping[int, BadRecord], bad: dict[int, BadRecord]) -> _Rows:
        """The other rows; adds these to ``bad``."""
        bad |= {int(self.at[row]): error for row, error in problems.items()}
        return self.take(np.delete(np.arange(len(self.at)), list(problems)))

    def by_digest(self, name: str) -> Iterator[tuple[str, _Rows]]:
        """The rows of each contract."""
        digests = texts(self.fields[name])
        for code, digest in sorted(enumerate(digests.known), key=lambda each: each[1]):
            rows = np.flatnonzero(digests.codes == code)
            if len(rows):
                yield digest, self.take(rows)


def _wrong_labels(plan: EvaluationPlan, fields: Fields) -> dict[int, BadRecord]:
    target = plan.contract.target
    problems = {}
    for name in ("label", "before.label") if target.type != "boolean" else ():
        column = fields[name]
        for row in np.flatnonzero(present(column) & ~np.isfinite(_labels(plan, column))).tolist():
            label = value_at(column, row)
            if target.type == "number":
                problems[row] = BadRecord("not-finite", f"the label is {label}", target.name)
            else:
                problems[row] = BadRecord("unseen-category", f"there is no class {label!r}", target.name)
    return problems


def _labels(plan: EvaluationPlan, column: Column) -> Floats:
    """As in `GroundTruth`."""
    match plan.contract.target.type:
        case "number":
            return numbers(column)
        case "boolean":
            return truths(column)
    classes = texts(column).in_terms_of(plan.contract.classes)
    return np.where(classes < 0, np.nan, classes)


def _within(fields: Fields, prefix: str) -> Fields:
    """The fields whose names begin so, by the rest of their names."""
    return {name[len(prefix) :]: column for name, column in fields.items() if name.startswith(prefix)}


def _predicted(plan: EvaluationPlan, at: Ints, fields: Fields) -> Predicted:
    level = plan.contract.service_levels.latency_p99_ms
    by_other = ~texts(fields["served_by"]).isin(("model",))
    return Predicted(
        at=at,
        event_times=integers(fields["event_time"]),
        version=integers(fields["version"]),
        role=texts(fields["role"]),
        artifact=texts(fields["artifact_digest"]),
        champions_arm=texts(fields["arm"]).isin((CHAMPIONS_ARM,)),
        slow=numbers(fields["latency_ms"]) > (math.inf if level is None else level),
        fallback=by_other & ~texts(fields["served_cause"]).isin(("off",)),
        answers=_answers(plan, fields),
        columns=plan.request(fields),
    )


def _outcomes(plan: EvaluationPlan, predicted: Predicted, fields: Fields) -> OutcomeRows:
    truth, before = (_truth(plan, _within(fields, prefix)) for prefix in ("", "before."))
    same = (truth.label == before.label) | (np.isnan(truth.label) & np.isnan(before.label))
    # Where the label was known before, it is only the action that is new.
    is_new = truth.state.isin(("labelled",)) & ~(before.state.isin(("labelled",)) & same)
    return OutcomeRows(
        predicted=predicted,
        known_at=integers(fields["known_at"]),
        first=integers(fields["revision"]) == 1,
        duplicate=present(fields["duplicate_of"]),
        late=(numbers(fields["late"]) != 0) & is_new,
        truth=truth,
        before=before,
        against=integers(fields["champion.version"]),
        champion=_answers(plan, _within(fields, "champion.")),
    )


def _truth(plan: EvaluationPlan, fields: Fields) -> GroundTruth:
    taken = texts(fields["action_taken"])
    # An empty text says of nothing that it was done.
    taken = taken._replace(codes=np.where(taken.isin(("",)), UNKNOWN, taken.codes))
    return GroundTruth(texts(fields["state"]), _labels(plan, fields["label"]), taken)


def _answers(plan: EvaluationPlan, fields: Fields) -> LoggedAnswers:
    score, classes = numbers(fields["score"]), plan.contract.classes
    unknown = [np.nan] * (len(classes) if plan.contract.task == "multiclass" else 0)
    probabilities = np.full((len(score), len(unknown)), np.nan)
    if unknown:
        probabilities = fields["probabilities"].values.mapped(
            lambda shares: [shares.get(name, 0.0) for name in classes] if shares else unknown, unknown
        )
    return LoggedAnswers(
        score=score,
        probabilities=probabilities,
        chosen=np.maximum(texts(fields["predicted_class"]).in_terms_of(classes), UNKNOWN),
        value=numbers(fields["value"]),
        action=texts(fields["action"]),
        findings=findings.findings_of(fields) if plan.reads_findings and findings.SET in fields else None,
    )
