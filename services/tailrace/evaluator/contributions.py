"""What outcomes say, one row for each thing said: anew (sign 1) or taken back (sign -1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tailrace.avro.columns.categorical_column import CategoricalColumn
from tailrace.evaluator.plan import EvaluationPlan
from tailrace.evaluator.rows import GroundTruth, LoggedAnswers, OutcomeRows
from tailrace.models.columns import Coded, taken
from tailrace.statistics.judged_rows import JudgedRows
from tailrace.statistics.metrics import VALUE, row_losses
from tailrace.statistics.result import Floats, Ints, Mask

KNOWN = ("labelled", "assumed")


@dataclass(frozen=True)
class Contributions:
    """Attributes:
    at: which outcome each row comes from.
    signs: 1 or -1.
    answers: what the version had said.
    columns: of the requests, for the contract's value.
    """

    plan: EvaluationPlan
    at: Ints
    signs: Ints
    truth: GroundTruth
    answers: LoggedAnswers
    columns: Mapping[str, Coded]

    def take(self, rows: Ints) -> Contributions:
        truth, answers, columns = self.truth.take(rows), self.answers.take(rows), taken(self.columns, rows)
        return Contributions(self.plan, self.at[rows], self.signs[rows], truth, answers, columns)

    @cached_property
    def known(self) -> Mask:
        """Where there is a truth to judge by."""
        return self.truth.state.isin(KNOWN)

    @cached_property
    def classes(self) -> Ints:
        """Number of the true class; -1 where there is none."""
        if self.plan.contract.task == "regression":
            return np.full(len(self.at), -1, dtype=np.int64)
        return np.nan_to_num(self.truth.label, nan=-1.0).astype(np.int64)

    @cached_property
    def positive(self) -> Mask:
        return np.equal(self.classes, self.plan.positive)

    def quantities(self, answers: LoggedAnswers, actions: CategoricalColumn) -> dict[str, Floats]:
        """Losses, and the contract's value where it has one, of these answers and actions; NaN where unknown."""
        quantities = row_losses(
            JudgedRows(
                self.plan.contract.task,
                self.classes,
                self.truth.label,
                answers.chosen,
                answers.score,
                answers.probabilities,
                answers.value,
                self.plan.positive,
            )
        )
        worth = self.plan.worth(self.columns, answers, actions, self.truth.label)
        if worth is not None:
            quantities[VALUE.name] = worth
        return {name: np.where(self.known, values, np.nan) for name, values in quantities.items()}

    def covered(self, answers: LoggedAnswers) -> Floats:
        """1 where the set or the interval of an answer holds the truth, 0 where not, NaN where either is not known."""
        if self.plan.contract.guardrails.coverage is None or answers.findings is None:
            return np.full(len(self.at), np.nan)
        if self.plan.contract.classes:
            holds = answers.findings.holds_class(self.classes, self.plan.contract.classes)
        else:
            holds = answers.findings.holds_value(self.truth.label)
        return np.where(self.known, holds, np.nan)


def contributions(plan: EvaluationPlan, rows: OutcomeRows) -> Contributions:
    """All that the outcomes say; those of repeated requests say nothing."""
    anew = np.flatnonzero(~rows.duplicate)
    back = np.flatnonzero(~rows.duplicate & (rows.before.state.codes >= 0))
    at = np.concatenate([anew, back])
    signs = np.repeat(np.array([1, -1], dtype=np.int64), [len(anew), len(back)])
    truth = rows.truth.take(at).where(signs > 0, rows.before.take(at))
    answers, columns = rows.predicted.answers.take(at), taken(rows.predicted.columns, at)
    return Contributions(plan, at, signs, truth, answers, columns)
