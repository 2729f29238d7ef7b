"""What follows from one contract for the evaluator, worked out once: slices, value, classes, ages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tailrace.avro.columns.categorical_column import UNKNOWN, CategoricalColumn
from tailrace.avro.columns.decoder import Column
from tailrace.contracts.expressions.compiler import ColumnType, Expression, compile_expression
from tailrace.contracts.expressions.values import Arrays
from tailrace.contracts.language.expression_columns import request_columns, value_columns
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.evaluator.field_columns import Fields, any_texts, numbers, texts, truths
from tailrace.evaluator.rows import LoggedAnswers
from tailrace.models.columns import Coded
from tailrace.statistics.result import Floats, Ints, Mask

FLAGS = ("uncertain", "guarded")
_UNCATEGORISED: Mapping[str, Callable[[Column], Coded]] = {
    "number": numbers,
    "boolean": truths,
    "text": any_texts,
}


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
        self._declared = self.contract.features | self.contract.context
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

    @property
    def positive(self) -> int:
        """Number of the positive class; -1 unless binary."""
        name = self.contract.positive_class
        return -1 if name is None else self.contract.classes.index(name)

    def age_of(self, window_ends: Ints, times: Ints) -> Ints:
        """The first age at which what is known at ``times`` is seen: ``len(ages)`` where it comes after the last."""
        return np.searchsorted(self.ages, times - window_ends, side="right")

    def can_be_labelled(self, actions: CategoricalColumn) -> Mask:
        """Whether the truth is ever known after these actions."""
        if not self.known_only_for:
            return np.ones(len(actions.codes), dtype=np.bool_)
        return actions.isin(self.known_only_for)

    def request(self, fields: Fields) -> dict[str, Coded]:
        """The columns of ``fields``; categories that the contract does not know as it says they count."""
        return {name: self._column(fields[f"request.{name}"], name) for name in self.fields}

    def _column(self, column: Column, name: str) -> Coded:
        field = self._declared[name]
        if field.categories is None:
            return _UNCATEGORISED[self.columns[name].kind](column)
        categories = texts(column)
        if field.unseen in (None, "reject"):
            return categories
        codes = categories.in_terms_of(field.categories)
        codes[codes < UNKNOWN] = field.categories.index(field.unseen)
        return CategoricalColumn(codes, tuple(field.categories))

    def segments(self, columns: Mapping[str, Coded], rows: int) -> list[Segments]:
        """All rows as one, then each slice: a field by its values, a condition where it is known to hold."""
        segments = [Segments([""], np.zeros(rows, dtype=np.int64))]
        arrays = Arrays(columns, rows)
        for text in self.slices:
            if text in self._conditions:
                holds = self._conditions[text].truth(arrays).yes
                segments.append(Segments([text], np.where(holds, 0, -1)))
            else:
                segments.append(self._by_field(text, columns[text]))
        return segments

    def _by_field(self, name: str, column: Coded) -> Segments:
        if isinstance(column, CategoricalColumn):
            values = list(self._declared[name].categories or ())
            codes = np.maximum(column.in_terms_of(values), -1)
        else:
            values = ["false", "true"]
            codes = np.nan_to_num(column, nan=-1.0).astype(np.int64)
        return Segments([f"{name}={value}" for value in values], codes)

    def worth(
        self, request: Mapping[str, Coded], answers: LoggedAnswers, actions: CategoricalColumn, labels: Floats
    ) -> Floats | None:
        """The contract's value by row, NaN where it is unknown; None where the contract has none.

        Where it reads flags and nobody knows what was found, it is unknown.
        """
        if self.value is None:
            return None
        if self._value_reads_flags and answers.findings is None:
            return np.full(len(labels), np.nan)
        columns = {**request, **self._outcome_columns(answers, actions, labels)}
        worth: Any = self.value.value(Arrays(columns, len(labels)))
        return np.broadcast_to(worth, len(labels))

    def _outcome_columns(
        self, answers: LoggedAnswers, actions: CategoricalColumn, labels: Floats
    ) -> dict[str, Coded]:
        target, classes = self.contract.target, tuple(self.contract.classes)
        columns: dict[str, Coded] = {"action": actions, target.name: labels}
        if target.type == "category":
            codes = np.nan_to_num(labels, nan=UNKNOWN).astype(np.int64)
            columns[target.name] = CategoricalColumn(codes, classes)
        if answers.findings is not None:
            columns |= {flag: getattr(answers.findings, flag) for flag in FLAGS}
        if self.contract.task == "regression":
            return columns | {"value": answers.value}
        score = answers.score if self.contract.task == "binary" else answers.probabilities.max(axis=1)
        return columns | {"score": score, "predicted_class": CategoricalColumn(answers.chosen, classes)}
