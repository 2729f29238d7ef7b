"""From what the model says to what is done: the first rule of the contract's policy that matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl

from tailrace.contracts.expressions import compile_expression, policy_columns
from tailrace.contracts.fields import ContextField, Feature
from tailrace.contracts.model_contract import ModelContract
from tailrace.kit.avro_columns import Mask
from tailrace.models.columns import Array
from tailrace.models.load import Predictions
from tailrace.scorer.frame import frame_of

DEFAULT_ACTION = "none"
"""What is done about a value where the policy is silent; about a class it is the class."""


NO_FLAGS: Mapping[str, Mask] = MappingProxyType({})


class Choice(NamedTuple):
    """A rule of the policy; ``action`` None is the predicted class."""

    action: str | None
    rule: str | None


@dataclass(frozen=True)
class Unscored(Predictions):
    """What is said without a number: the name of a class, or nothing."""

    named: str | None = None


class Policy:
    """The policy of one contract."""

    def __init__(self, contract: ModelContract) -> None:
        known = policy_columns(contract)
        last = Choice(None if contract.task != "regression" else DEFAULT_ACTION, None)
        self._conditions = []
        self.choices: list[Choice] = []
        for rule in contract.policy:
            choice = Choice(rule.do, rule.name)
            if rule.when is None:
                last = choice
                break
            self._conditions.append(compile_expression(rule.when, known, "boolean"))
            self.choices.append(choice)
        self.choices.append(last)
        first = pl.lit(len(self._conditions), dtype=pl.Int64)
        for index, condition in reversed(list(enumerate(self._conditions))):
            first = pl.when(condition.expr).then(pl.lit(index, dtype=pl.Int64)).otherwise(first)
        self._first = first.alias("choice")
        used = frozenset().union(*(c.names for c in self._conditions))
        self._outputs = used & {"score", "value", "predicted_class"}
        self._flags = used & {"uncertain", "guarded"}
        declared: dict[str, Feature | ContextField] = {**contract.context, **contract.features}
        self._kinds: dict[str, str] = {n: declared[n].type for n in used - self._outputs - self._flags}

    def choose(
        self,
        columns: Mapping[str, Array],
        outputs: Predictions,
        rows: int,
        flags: Mapping[str, Mask] = NO_FLAGS,
    ) -> Array:
        """Index into ``choices`` by row. A condition that is unknown, because a value is missing, does not
        match. ``uncertain`` and ``guarded`` are false unless ``flags`` says otherwise.
        """
        if not self._conditions:
            return np.zeros(rows, dtype=np.int64)
        used = frame_of({name: columns[name] for name in self._kinds}, self._kinds)
        said = [_output(name, outputs, rows) for name in sorted(self._outputs)]
        said += [
            pl.Series(name, flags[name]) if name in flags else pl.repeat(False, rows, eager=True).alias(name)
            for name in sorted(self._flags)
        ]
        frame = pl.DataFrame([*used.get_columns(), *said, pl.Series("", np.zeros(rows, dtype=np.int8))])
        plan = frame.lazy().select(self._first)
        # There is nothing to optimise, and looking for it would take as long as the work.
        chosen = plan.collect(optimizations=pl.QueryOptFlags.none()).to_series()
        if len(chosen) != rows:  # every condition is a constant
            chosen = chosen.new_from_index(0, rows)
        return chosen.to_numpy()


def _output(name: str, outputs: Predictions, rows: int) -> pl.Series:
    """A column of what was said; null where nothing was."""
    if isinstance(outputs, Unscored):
        if name == "predicted_class":
            return pl.Series(name, [outputs.named] * rows, dtype=pl.String)
        return pl.Series(name, [None] * rows, dtype=pl.Float64)
    if name == "value":
        return pl.Series(name, outputs.value)
    assert outputs.probabilities is not None
    if name == "predicted_class":
        assert outputs.predicted_class is not None
        return pl.Series(name, outputs.predicted_class.tolist())
    return pl.Series(name, outputs.score if outputs.score is not None else outputs.probabilities.max(axis=1))
