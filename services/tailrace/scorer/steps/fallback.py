"""Who answers where a version does not: the contract's fallback chain, and at its end a person.

The previous version says what it can, under the same guards. A rule or a constant says what a model would have said,
and the policy chooses the action; a row for which a step says nothing goes on to the next one. What names an action
is no answer: a person sees to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile

import numpy as np

from tailrace.contracts.expressions.compiler import Expression, Kind, compile_expression
from tailrace.contracts.expressions.values import Arrays
from tailrace.contracts.language.expression_columns import request_columns
from tailrace.contracts.language.guards.guard import Finding
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import Fallback
from tailrace.errors import BadRecord
from tailrace.models.columns import Array
from tailrace.models.predictions import Predictions
from tailrace.scorer.answers import Choice, Unscored
from tailrace.scorer.routed_rows import RoutedRows, run_steps
from tailrace.scorer.steps.event import gather_answers, write_events
from tailrace.scorer.steps.guards import inspect_outputs, note_certainty
from tailrace.scorer.steps.model import calibrate, fill_in, run_model
from tailrace.scorer.steps.policy import choose_action
from tailrace.scorer.versions import ServingVersion

AT_LAST = "refer"
"""What is done where the contract's chain says nothing."""


def leave_out_lost(routed: RoutedRows) -> None:
    """Leaves the rows without an answer that can be used to whoever asked."""
    routed.leave_out(routed.broken.keys() | routed.failed.keys())


PERSON_STEPS = (gather_answers, write_events)
RULE_STEPS = (choose_action, *PERSON_STEPS)
PREVIOUS_STEPS = (fill_in, run_model, inspect_outputs, leave_out_lost, calibrate, note_certainty, *RULE_STEPS)


def fall_back(routed: RoutedRows) -> None:
    """Has the chain answer the rows on which the version fails, or whose answer cannot be used.

    A shadow answers nobody, so that it has no fallback. Without one, a row on which the version fails has no answer,
    and what guards found is a flag.
    """
    lost: Mapping[int, Finding] = routed.failed
    if routed.plan.has_fallback and routed.identity.role != "shadow":
        lost = routed.broken | routed.failed
        answer_instead(routed, lost)
    else:
        usable = {row: finding for row, finding in routed.broken.items() if row not in lost}
        routed.findings.add(usable, "guarded")
        _refuse(routed)
    routed.leave_out(lost)


def _refuse(routed: RoutedRows) -> None:
    """What the model failed on becomes a dead letter; of a shadow the first one is kept for the alert."""
    batch, of = routed.batch, routed.identity
    failed = {int(routed.rows.at[row]): finding.detail for row, finding in routed.failed.items()}
    if of.role != "shadow":
        batch.bad |= {at: BadRecord("model-failed", why) for at, why in failed.items()}
    elif failed:
        first = min(failed)
        batch.failing.setdefault((of.model, of.version), (first, failed[first]))


def answer_instead(routed: RoutedRows, lost: Mapping[int, Finding]) -> None:
    """Has the chain answer these rows, each with what was found; the cause is the guard's name."""
    for cause in sorted({finding.guard for finding in lost.values()}):
        rows = np.array(sorted(row for row, finding in lost.items() if finding.guard == cause))
        part = routed.part(rows, served_cause=cause)
        part.findings.add({place: lost[row] for place, row in enumerate(rows.tolist())})
        run_chain(part)


def run_chain(routed: RoutedRows) -> None:
    """Has the chain answer every row."""
    chain = routed.plan.worked_out(FallbackChain)
    unanswered = np.arange(len(routed))
    for step, rule in chain.steps:
        if step.previous is None:
            unanswered = _answer_by_rule(routed, unanswered, chain, step, rule)
        elif routed.previous is not None:
            unanswered = _answer_by_version(routed, unanswered, routed.previous)
        if not len(unanswered):
            return
    person = routed.part(unanswered, served_by="person")
    person.choices, person.options = np.zeros(len(unanswered), dtype=np.int64), [Choice(chain.at_last, None)]
    run_steps(PERSON_STEPS, person)


def _answer_by_version(routed: RoutedRows, left: Array, version: ServingVersion) -> Array:
    """Has another version answer; which of the rows it does not."""
    asked = routed.part(left, served_by="previous")
    asked.version = version
    note_stand_in(asked)
    run_steps(PREVIOUS_STEPS, asked)
    unanswered: Array = left[sorted(asked.broken.keys() | asked.failed.keys())]
    return unanswered


def note_stand_in(routed: RoutedRows) -> None:
    """Notes which version answers in the place of another one."""
    assert routed.version is not None
    who = f"version {routed.version.number}, {routed.version.model.digest}"
    routed.findings.add(dict.fromkeys(range(len(routed)), Finding("previous", None, who)))


def _answer_by_rule(
    routed: RoutedRows, left: Array, chain: FallbackChain, step: Fallback, rule: Expression | None
) -> Array:
    """Answers the rows for which a rule or a constant has a value; which of the rows it does not."""
    values: list[float | str | None] = [step.constant] * len(left)
    if rule is not None:
        used = {name: routed.received.columns[name].take(left) for name in rule.names}
        values = rule.evaluate(Arrays(used, len(left))).to_list()
    for outputs, rows in chain.predictions(values):
        part = routed.part(left[rows], served_by="constant" if rule is None else "rule")
        part.outputs = outputs
        run_steps(RULE_STEPS, part)
    unanswered: Array = left[[row for row, value in enumerate(values) if not chain.usable(value)]]
    return unanswered


class FallbackChain:
    """The chain of one contract.

    Attributes:
        steps: those that answer, with the rule that each has.
        at_last: what a person is to do with the rest.
    """

    def __init__(self, contract: ModelContract) -> None:
        self._contract = contract
        known = request_columns(contract)
        wanted: Kind = "text" if contract.task == "multiclass" else "number"
        chain = contract.guardrails.fallback
        self.at_last: str = next((step.do for step in chain if step.do is not None), AT_LAST)
        self.steps = [
            (step, None if step.rule is None else compile_expression(step.rule, known, wanted))
            for step in takewhile(lambda step: step.do is None, chain)
        ]

    def usable(self, value: float | str | None) -> bool:
        """Whether a model could have given it."""
        if isinstance(value, str):
            return value in self._contract.classes
        return value is not None and (self._contract.task == "regression" or 0.0 <= value <= 1.0)

    def predictions(self, values: list[float | str | None]) -> Iterator[tuple[Predictions, Array]]:
        """The usable values as predictions, and which rows these are."""
        rows = [row for row, value in enumerate(values) if self.usable(value)]
        if not rows:
            return
        if self._contract.task == "multiclass":
            for name in sorted({str(values[row]) for row in rows}):
                yield Unscored(None, None, None, (), name), np.array([r for r in rows if values[r] == name])
            return
        usable = np.array(rows, dtype=np.int64)
        numbers = np.array([values[row] for row in rows], dtype=np.float64)
        if self._contract.task == "regression":
            yield Predictions(None, None, numbers, ()), usable
            return
        classes = tuple(self._contract.classes)
        sides = [1.0 - numbers, 1.0 - numbers]
        sides[classes.index(str(self._contract.positive_class))] = numbers
        yield Predictions(np.column_stack(sides), numbers, None, classes), usable
