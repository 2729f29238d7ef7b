"""What follows from one contract for the evaluator, worked out once: slices, value, classes, ages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tailrace.contracts.expressions.compiler import ColumnType, Expression, compile_expression
from tailrace.contracts.language.expression_columns import request_columns, value_columns
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.evaluator.rows import LoggedAnswers
from tailrace.statistics.result import Floats, Ints, Mask

FLAGS = ("uncertain", "guarded")
_DTYPES = {"number": pl.Float64, "boolean": pl.Boolean, "text": pl.String}


class Segments(NamedTuple):
    """One way to split rows: the names of the parts, and the number of each row's part, -1 where it is in none."""

    names: list[str]
    codes: Ints


class EvaluationPlan:
    """One contract, as the evaluator applies it."""

    def __init__(self, applied: AppliedContract) -> None:
        self.applied = applied
        self.contract: ModelContract = applied.contract
        self.columns: dict[str, ColumnType] = request_columns(self.contract)
        gate = self.contract.gates.not_worse_on
        self.slices = list(dict.fromkeys([*self.contract.quality.slices, *(gate.slices if gate else [])]))
        self._conditions = {
            text: compile_expression(text, self.columns, "boolean")
            for text in self.slices
            if text not in self.columns
        }
        self.known_only_for = frozenset(self.contract.labels.known_only_for)

    @cached_property
    def value(self) -> Expression | None:
        text = self.contract.value
        return None if text is None else compile_expression(text, value_columns(self.contract), "number")

    @cached_property
    def fields(self) -> list[str]:
        """The fields of a request that slices and value read, in the contract's order."""
        used = set(self.slices).union(*(c.names for c in self._conditions.values()))
        if self.value is not None:
            used |= self.value.names
        return [name for name in self.columns if name in used]

    @property
    def reads_findings(self) -> bool:
        """Whether what guards found counts: for the coverage of sets and intervals, or for the contract's value."""
        return self.contract.guardrails.coverage is not None or self._value_reads_flags

    @cached_property
    def _value_reads_flags(self) -> bool:
        return self.value is not None and not self.value.names.isdisjoint(FLAGS)

    @property
    def window_ms(self) -> int:
        return self.contract.quality.window_ms

    @cached_property
    def ages(self) -> Ints:
        return np.array(self.contract.quality.judge_at_ms, dtype=np.int64)

    @cached_property
    def class_numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.contract.classes)}

    @property
    def positive(self) -> int:
        """Number of the positive class; -1 unless binary."""
        return self.class_numbers.get(self.contract.positive_class or "", -1)

    def age_of(self, window_ends: Ints, times: Ints) -> Ints:
        """The first age at which what is known at ``times`` is seen: ``len(ages)`` where it comes after the last."""
        found: Ints = np.searchsorted(self.ages, times - window_ends, side="right")
        return found

    def can_be_labelled(self, actions: list[str]) -> Mask:
        """Whether the truth is ever known after these actions."""
        if not self.known_only_for:
            return np.ones(len(actions), dtype=np.bool_)
        return np.array([action in self.known_only_for for action in actions], dtype=np.bool_)

    def frame(self, columns: Mapping[str, list[Any]], rows: int) -> pl.DataFrame:
        """Columns of ``fields`` as a frame; categories that the contract does not know as it says they count."""
        known = self.contract.features | self.contract.context
        series = [pl.Series("", np.zeros(rows, dtype=np.int8))]  # without a column there would be no rows
        for name in self.fields:
            values, field = columns[name], known[name]
            if field.categories is not None and field.unseen not in (None, "reject"):
                as_known = {value: value for value in field.categories}
                values = [None if value is None else as_known.get(value, field.unseen) for value in values]
            if field.type == "boolean":
                values = [None if value is None else bool(value) for value in values]
            series.append(pl.Series(name, values, dtype=_DTYPES[self.columns[name].kind], strict=False))
        return pl.DataFrame(series)

    def segments(self, fields: pl.DataFrame, rows: int) -> list[Segments]:
        """All rows as one, then each slice: a field by its values, a condition where it is known to hold."""
        found = [Segments([""], np.zeros(rows, dtype=np.int64))]
        for text in self.slices:
            if text in self._conditions:
                holds = self._conditions[text].matches(fields).to_numpy()
                found.append(Segments([text], np.where(holds, 0, -1)))
            else:
                found.append(self._by_field(text, fields[text].to_list()))
        return found

    def _by_field(self, name: str, given: list[object]) -> Segments:
        values = (self.contract.features | self.contract.context)[name].categories
        texts: list[object] = [False, True] if values is None else list(values)
        numbers = {value: number for number, value in enumerate(texts)}
        codes = np.array([numbers.get(value, -1) for value in given], dtype=np.int64)
        names = [f"{name}={str(text).lower() if isinstance(text, bool) else text}" for text in texts]
        return Segments(names, codes)

    def worth(
        self, fields: pl.DataFrame, answers: LoggedAnswers, actions: list[str], labels: list[object]
    ) -> Floats | None:
        """The contract's value by row, NaN where it is unknown; None where the contract has none.

        Where it reads flags and nobody knows what was found, it is unknown.
        """
        if self.value is None:
            return None
        if self._value_reads_flags and answers.findings is None:
            return np.full(len(actions), np.nan)
        said = self._said(answers, actions, labels)
        used = sorted(self.value.names & said.keys())
        frame = pl.DataFrame([*fields.get_columns(), *(said[name] for name in used)])
        found: Floats = self.value.evaluate(frame).fill_null(np.nan).to_numpy()
        return found

    def _said(self, answers: LoggedAnswers, actions: list[str], labels: list[object]) -> dict[str, pl.Series]:
        target = self.contract.target
        kinds = value_columns(self.contract)
        said = {
            "action": pl.Series("action", actions, dtype=pl.String),
            target.name: pl.Series(target.name, labels, dtype=_DTYPES[kinds[target.name].kind]),
        }
        if answers.findings is not None:
            said |= {flag: pl.Series(flag, getattr(answers.findings, flag)) for flag in FLAGS}
        if self.contract.task == "regression":
            return said | {"value": pl.Series("value", answers.value)}
        names = [*self.contract.classes, None]
        score = answers.score if self.contract.task == "binary" else answers.probabilities.max(axis=1)
        return said | {
            "score": pl.Series("score", score),
            "predicted_class": pl.Series(
                "predicted_class", [names[c] for c in answers.chosen.tolist()], dtype=pl.String
            ),
        }
