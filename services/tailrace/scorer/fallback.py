"""Who answers where a version does not: the contract's fallback chain, and at its end a person.

The previous version says what it can, under the same guards. A rule or a constant says what a model would have said,
and the policy chooses the action; a row for which a step says nothing goes on to the next one. What names an action
is no answer: a person sees to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from tailrace.contracts.expressions.compiler import Kind, compile_expression
from tailrace.contracts.expressions.values import Arrays
from tailrace.contracts.language.expression_columns import request_columns
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Array
from tailrace.models.predictions import Predictions
from tailrace.scorer.findings import Findings
from tailrace.scorer.policy import Choice, Policy, Unscored
from tailrace.scorer.rows import CheckedRows

AT_LAST = "refer"
"""What is done where the contract's chain says nothing."""

ServedBy = Literal["previous", "rule", "constant", "person"]


class VersionAnswer(NamedTuple):
    """What a version says about the rows that it was asked about.

    ``rows``, ``outputs`` and ``notes`` are those of the rows at ``at``, for which it has an answer that can be used.
    """

    at: Array
    rows: CheckedRows
    outputs: Predictions
    notes: Findings


AskVersion = Callable[[CheckedRows, Findings], VersionAnswer]


class FallbackAnswers(NamedTuple):
    """Some of the rows, and how they are answered: as with a model, ``choices`` index ``options``."""

    rows: CheckedRows
    served_by: ServedBy
    outputs: Predictions
    choices: Array
    options: list[Choice]
    notes: Findings


class FallbackChain:
    """The chain of one contract."""

    def __init__(self, contract: ModelContract, policy: Policy) -> None:
        self._contract, self._policy = contract, policy
        known = request_columns(contract)
        wanted: Kind = "text" if contract.task == "multiclass" else "number"
        self._steps = [
            (step, None if step.rule is None else compile_expression(step.rule, known, wanted))
            for step in contract.guardrails.fallback
        ]

    def __bool__(self) -> bool:
        """Whether the contract says anything about who answers."""
        return bool(self._steps)

    def answer(
        self, rows: CheckedRows, notes: Findings, previous: AskVersion | None = None
    ) -> Iterator[FallbackAnswers]:
        """Every row, in groups.

        Args:
            rows: as they were received, with nothing filled in.
            notes: what is known about the rows whoever answers.
            previous: asks the previous version; None where there is none to ask.
        """
        left = np.arange(len(rows))
        for step, rule in self._steps:
            if step.do is not None:
                break
            if step.previous is not None:
                if previous is not None:
                    by = previous(rows.take(left), notes.take(left))
                    if len(by.at):
                        choices = self._choose(by.rows, by.outputs, by.notes)
                        yield FallbackAnswers(
                            by.rows, "previous", by.outputs, choices, self._policy.choices, by.notes
                        )
                        left = np.delete(left, by.at)
                if not len(left):
                    return
                continue
            said: list[float | str | None] = [step.constant] * len(left)
            if rule is not None:
                used = {name: rows.columns[name].take(left) for name in rule.names}
                said = rule.evaluate(Arrays(used, len(left))).to_list()
            for outputs, some in self._said(said):
                these, noted = rows.take(left[some]), notes.take(left[some])
                served_by: ServedBy = "constant" if rule is None else "rule"
                choices = self._choose(these, outputs, noted)
                yield FallbackAnswers(these, served_by, outputs, choices, self._policy.choices, noted)
            left = left[[row for row, what in enumerate(said) if not self._usable(what)]]
            if not len(left):
                return
        last = next((step.do for step, _ in self._steps if step.do is not None), AT_LAST)
        nobody = np.zeros(len(left), dtype=np.int64)
        yield FallbackAnswers(
            rows.take(left), "person", _nothing(), nobody, [Choice(last, None)], notes.take(left)
        )

    def _choose(self, rows: CheckedRows, outputs: Predictions, notes: Findings) -> Array:
        return self._policy.choose(rows.columns, outputs, len(rows), notes.flags)

    def _usable(self, said: float | str | None) -> bool:
        """Whether it is something that a model could have said."""
        if isinstance(said, str):
            return said in self._contract.classes
        return said is not None and (self._contract.task == "regression" or 0.0 <= said <= 1.0)

    def _said(self, said: list[float | str | None]) -> Iterator[tuple[Predictions, Array]]:
        """What the usable rows were told, as predictions, and which rows these are."""
        usable = np.array([row for row, what in enumerate(said) if self._usable(what)], dtype=np.int64)
        if not len(usable):
            return
        if self._contract.task == "multiclass":
            for name in sorted({str(said[row]) for row in usable.tolist()}):
                yield _nothing(name), np.array([row for row in usable.tolist() if said[row] == name])
            return
        numbers = np.array([said[row] for row in usable.tolist()], dtype=np.float64)
        if self._contract.task == "regression":
            yield Predictions(None, None, numbers, ()), usable
            return
        classes = tuple(self._contract.classes)
        sides = [1.0 - numbers, 1.0 - numbers]
        sides[classes.index(str(self._contract.positive_class))] = numbers
        yield Predictions(np.column_stack(sides), numbers, None, classes), usable


def _nothing(named: str | None = None) -> Unscored:
    return Unscored(None, None, None, (), named)
