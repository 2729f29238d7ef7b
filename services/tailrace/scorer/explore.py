"""A share of one action is turned into another, so that its outcome becomes known (``explore`` of the contract).

Which rows are turned follows from where their requests stand, and from nothing else: scored again it is the same rows,
whatever the version, the batch or the score. With what probability each action was to be chosen is in its event, so
that what the policy would have earned can be weighed out of the log (Horvitz and Thompson, JASA 1952).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrace.avro.columns.decoder import Ints
from tailrace.avro.columns.hashing import source_positions
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Array
from tailrace.models.predictions import Predictions
from tailrace.scorer.policy import Choice


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
        self,
        choices: Array,
        outputs: Predictions,
        topic: str,
        partitions: Ints,
        offsets: Ints,
    ) -> Explored:
        """The choices with some turned.

        Args:
            choices: index into the policy's options, by row.
            outputs: what the model said, whose class is the action where an option names none.
            topic, partitions, offsets: where each row's request stands.
        """
        if self._share:
            from_rows = self._named[choices]
            if self._from in outputs.classes:
                said = outputs.most_probable == outputs.classes.index(self._from)
                from_rows = from_rows | (self._by_class[choices] & said)
            rows = np.flatnonzero(from_rows)
            turned = source_positions("explore", topic, partitions[rows], offsets[rows]) < self._share
            choices = choices.copy()
            choices[rows] += np.where(turned, 2 * self._count, self._count)
        return Explored(choices, self._options, self._propensities)
