"""From the model's outputs to the action: the first rule of the contract's policy that matches. Then a share of one
action is turned into another, so that its outcome becomes known (``explore`` of the contract).

Which rows are turned follows from where their requests stand, and from nothing else: scored again it is the same rows,
whatever the version, the batch or the score. With what probability each action was to be chosen is in its event, so
that what the policy would have earned can be weighed out of the log (Horvitz and Thompson, JASA 1952).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tailrace.avro.columns.categorical_column import UNKNOWN, CategoricalColumn
from tailrace.avro.columns.decoder import Ints, Mask
from tailrace.avro.columns.hashing import source_positions
from tailrace.contracts.expressions.compiler import compile_expression
from tailrace.contracts.expressions.values import Arrays
from tailrace.contracts.language.expression_columns import policy_columns
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Array, Coded
from tailrace.models.predictions import Predictions
from tailrace.scorer.answers import Choice, Unscored
from tailrace.scorer.routed_rows import RoutedRows

DEFAULT_ACTION = "none"
"""What is done about a value where the policy is silent; about a class it is the class."""

NO_FLAGS: Mapping[str, Mask] = MappingProxyType({})
_UNRAISED = {"uncertain": np.array(False), "guarded": np.array(False)}


def choose_action(routed: RoutedRows) -> None:
    policy = routed.plan.worked_out(Policy)
    flags = routed.findings.flags
    routed.choices = policy.choose(routed.rows.columns, routed.outputs, len(routed), flags)
    routed.options = policy.choices


def explore(routed: RoutedRows) -> None:
    exploration, sources = routed.plan.worked_out(_exploration), routed.batch.sources(routed.rows.at)
    explored = exploration.turn(routed.choices, routed.outputs, *sources)
    routed.choices, routed.options, routed.propensities = explored


class Policy:
    """The policy of one contract."""

    def __init__(self, contract: ModelContract) -> None:
        known = policy_columns(contract)
        self._regression = contract.task == "regression"
        last = Choice(DEFAULT_ACTION if self._regression else None, None)
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
        known = Arrays({**columns, **_UNRAISED, **flags, **_output_columns(outputs, self._regression)}, rows)
        choices = np.full(rows, len(self._conditions))
        for number, condition in reversed(list(enumerate(self._conditions))):
            choices[condition.truth(known).yes] = number
        return choices


def _output_columns(outputs: Predictions, regression: bool) -> dict[str, Coded]:
    """Outputs as columns; unknown where there are none."""
    if isinstance(outputs, Unscored):
        unknown = np.array(np.nan)
        if regression:
            return {"value": unknown}
        names = () if outputs.named is None else (outputs.named,)
        named = CategoricalColumn(np.array(0 if names else UNKNOWN), names)
        return {"score": unknown, "predicted_class": named}
    if outputs.value is not None:
        return {"value": outputs.value}
    assert outputs.probabilities is not None
    assert outputs.most_probable is not None
    score = outputs.score if outputs.score is not None else outputs.probabilities.max(axis=1)
    return {"score": score, "predicted_class": CategoricalColumn(outputs.most_probable, outputs.classes)}


class Explored(NamedTuple):
    """What is done by row: ``choices`` index ``options``, each with its propensity."""

    choices: Array
    options: Sequence[Choice]
    propensities: Sequence[float]


class Exploration:
    """The exploration of one contract, over the options of its policy. Where the contract has none, all stays."""

    def __init__(self, contract: ModelContract, options: Sequence[Choice]) -> None:
        explore = contract.explore
        self._options, self._propensities = list(options), [1.0] * len(options)
        self._from, self._share = "", 0.0
        if explore is None or explore.from_action == explore.do:
            return
        self._from, self._share = explore.from_action, explore.share
        # Behind the options as they are: each where it is kept although it could have been turned, and turned.
        self._options += [*options, *(Choice(explore.do, option.rule) for option in options)]
        self._propensities += [1.0 - self._share] * len(options) + [self._share] * len(options)
        self._count = len(options)
        self._named = np.array([option.action == self._from for option in options])
        self._by_class = np.array([option.action is None for option in options])

    def turn(
        self, choices: Array, outputs: Predictions, topic: str, partitions: Ints, offsets: Ints
    ) -> Explored:
        """The choices with some turned.

        Args:
            choices: index into the policy's options, by row.
            outputs: the model's, whose class is the action where an option names none.
            topic, partitions, offsets: where each row's request stands.
        """
        if self._share:
            from_rows = self._named[choices]
            if self._from in outputs.classes:
                is_class = outputs.most_probable == outputs.classes.index(self._from)
                from_rows = from_rows | (self._by_class[choices] & is_class)
            rows = np.flatnonzero(from_rows)
            turned = source_positions("explore", topic, partitions[rows], offsets[rows]) < self._share
            choices = choices.copy()
            choices[rows] += np.where(turned, 2 * self._count, self._count)
        return Explored(choices, self._options, self._propensities)


def _exploration(contract: ModelContract) -> Exploration:
    return Exploration(contract, Policy(contract).choices)
