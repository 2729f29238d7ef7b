"""What is logged beside answers: the flags that the contract's value may read, and sets and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tailrace.avro.columns.categorical_column import UNKNOWN
from tailrace.evaluator.field_columns import Fields, ObjectColumn, numbers, texts
from tailrace.statistics.result import Floats, Ints, Mask

FIELDS = ("guarded", "interval_low", "interval_high")
SET = "prediction_set"


@dataclass(frozen=True)
class LoggedFindings:
    """Row by row.

    Attributes:
        uncertain, guarded: as the policy saw them.
        sets: lists of classes; none where the version did not answer itself, or there is none.
        low, high: ends of the interval; NaN likewise.
    """

    uncertain: Mask
    guarded: Mask
    sets: ObjectColumn
    low: Floats
    high: Floats

    def take(self, rows: Ints) -> LoggedFindings:
        return LoggedFindings(
            self.uncertain[rows], self.guarded[rows], self.sets.take(rows), self.low[rows], self.high[rows]
        )

    def holds_class(self, truth: Ints, classes: Sequence[str]) -> Floats:
        """1 where a row's set holds the true class, given by its number, 0 where not, NaN where either is not known."""
        no_class = [False] * len(classes)
        holds = self.sets.mapped(lambda names: [name in (names or ()) for name in classes], no_class)
        unknown = (self.sets.codes < 0) | (truth < 0)
        return np.where(unknown, np.nan, holds[np.arange(len(truth)), truth])

    def holds_value(self, truth: Floats) -> Floats:
        """The same of intervals and true values, NaN where one is not known."""
        unknown = np.isnan(self.low) | np.isnan(self.high) | np.isnan(truth)
        return np.where(unknown, np.nan, (self.low <= truth) & (truth <= self.high))


def findings_of(fields: Fields) -> LoggedFindings:
    """The findings of predictions. What a set or an interval holds is counted for the version that answered itself."""
    own = texts(fields["served_by"]).isin(("model",))
    sets: ObjectColumn = fields[SET].values
    return LoggedFindings(
        uncertain=sets.mapped(lambda names: names is not None and len(names) != 1, False),
        guarded=numbers(fields["guarded"]) != 0,
        sets=ObjectColumn(np.where(own, sets.codes, UNKNOWN), sets.known),
        low=np.where(own, numbers(fields["interval_low"]), np.nan),
        high=np.where(own, numbers(fields["interval_high"]), np.nan),
    )
