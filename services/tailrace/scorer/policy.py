"""From what the model says to what is done: the first rule of the contract's policy that matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tailrace.avro.columns.categorical_column import UNKNOWN, CategoricalColumn
from tailrace.avro.columns.decoder import Mask
from tailrace.contracts.expressions.compiler import compile_expression
from tailrace.contracts.expressions.values import Arrays
from tailrace.contracts.language.expression_columns import policy_columns
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Array, Coded
from tailrace.models.predictions import Predictions

DEFAULT_ACTION = "none"
"""What is done about a value where the policy is silent; about a class it is the class."""


NO_FLAGS: Mapping[str, Mask] = MappingProxyType({})
_UNRAISED = {"uncertain": np.array(False), "guarded": np.array(False)}


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
        self._regression = contract.task == "regression"
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

    def choose(
        self,
        columns: Mapping[str, Coded],
        outputs: Predictions,
        rows: int,
        flags: Mapping[str, Mask] = NO_FLAGS,
    ) -> Array:
        """Index into ``choices`` by row. A condition that is unknown, because a value is missing, does not
        match. ``uncertain`` and ``guarded`` are false unless ``flags`` says otherwise.
        """
        known = Arrays({**columns, **_UNRAISED, **flags, **_said(outputs, self._regression)}, rows)
        choices = np.full(rows, len(self._conditions))
        for number, condition in reversed(list(enumerate(self._conditions))):
            choices[condition.truth(known).yes] = number
        return choices


def _said(outputs: Predictions, regression: bool) -> dict[str, Coded]:
    """What was said, as columns; unknown where nothing was."""
    if isinstance(outputs, Unscored):
        nothing = np.array(np.nan)
        if regression:
            return {"value": nothing}
        named = () if outputs.named is None else (outputs.named,)
        return {
            "score": nothing,
            "predicted_class": CategoricalColumn(np.array(0 if named else UNKNOWN), named),
        }
    if outputs.value is not None:
        return {"value": outputs.value}
    assert outputs.probabilities is not None
    assert outputs.most_probable is not None
    score = outputs.score if outputs.score is not None else outputs.probabilities.max(axis=1)
    return {"score": score, "predicted_class": CategoricalColumn(outputs.most_probable, outputs.classes)}
