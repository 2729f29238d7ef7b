"""What outcomes say, one row for each thing said: anew (sign 1) or taken back (sign -1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from tailrace.evaluator.plan import EvaluationPlan
from tailrace.evaluator.rows import GroundTruth, LoggedAnswers, OutcomeRows
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
    fields: of the requests, for the contract's value.
    """

    plan: EvaluationPlan
    at: Ints
    signs: Ints
    truth: GroundTruth
    answers: LoggedAnswers
    fields: pl.DataFrame

    def take(self, rows: Ints) -> Contributions:
        return Contributions(
            self.plan,
            self.at[rows],
            self.signs[rows],
            self.truth.take(rows),
            self.answers.take(rows),
            self.fields[rows],
        )

    @cached_property
    def known(self) -> Mask:
        """Where there is a truth to judge by."""
        return np.array([state in KNOWN for state in self.truth.state], dtype=np.bool_)

    def in_state(self, state: str) -> Mask:
        return np.array([found == state for found in self.truth.state], dtype=np.bool_)

    @cached_property
    def _numbers(self) -> Floats:
        """The true value, or the number of the true class; NaN where there is no label."""
        numbers: Mapping[Any, float] | None = None
        if self.plan.contract.target.type == "category":
            numbers = self.plan.class_numbers
        return np.array(
            [
                np.nan if label is None else float(label if numbers is None else numbers[label])
                for label in self.truth.label
            ],
            dtype=np.float64,
        )

    @cached_property
    def classes(self) -> Ints:
        """Number of the true class; -1 where there is none."""
        if self.plan.contract.task == "regression":
            return np.full(len(self.at), -1, dtype=np.int64)
        return np.nan_to_num(self._numbers, nan=-1.0).astype(np.int64)

    @cached_property
    def positive(self) -> Mask:
        found: Mask = self.classes == self.plan.positive
        return found

    def quantities(self, answers: LoggedAnswers, actions: list[str]) -> dict[str, Floats]:
        """Losses, and the contract's value where it has one, of these answers and actions; NaN where unknown."""
        found = row_losses(
            JudgedRows(
                self.plan.contract.task,
                self.classes,
                self._numbers,
                answers.chosen,
                answers.score,
                answers.probabilities,
                answers.value,
                self.plan.positive,
            )
        )
        worth = self.plan.worth(self.fields, answers, actions, self.truth.label)
        if worth is not None:
            found[VALUE.name] = worth
        return {name: np.where(self.known, values, np.nan) for name, values in found.items()}

    def covered(self, answers: LoggedAnswers) -> Floats:
        """1 where the set or the interval of an answer holds the truth, 0 where not, NaN where either is not known."""
        if self.plan.contract.guardrails.coverage is None or answers.findings is None:
            return np.full(len(self.at), np.nan)
        if self.plan.contract.classes:
            names = [*self.plan.contract.classes, None]
            found = answers.findings.holds_class([names[number] for number in self.classes.tolist()])
        else:
            found = answers.findings.holds_value(self._numbers)
        return np.where(self.known, found, np.nan)


def contributions(plan: EvaluationPlan, rows: OutcomeRows) -> Contributions:
    """All that the outcomes say; those of repeated requests say nothing."""
    counting = np.flatnonzero(~rows.duplicate)
    replacing = np.flatnonzero(~rows.duplicate[rows.replacing])
    at = np.concatenate([counting, rows.replacing[replacing]])
    return Contributions(
        plan,
        at,
        np.repeat(np.array([1, -1], dtype=np.int64), [len(counting), len(replacing)]),
        rows.truth.take(counting) + rows.before.take(replacing),
        rows.predicted.answers.take(at),
        rows.predicted.fields[at],
    )
