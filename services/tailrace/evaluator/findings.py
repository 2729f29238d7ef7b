"""What is logged beside answers: the flags that the contract's value may read, and sets and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailrace.statistics.result import Floats, Ints, Mask

FIELDS = ("guarded", "interval_low", "interval_high")
SET = "prediction_set"


@dataclass(frozen=True)
class LoggedFindings:
    """Row by row.

    Attributes:
        uncertain, guarded: as the policy saw them.
        sets: None where the version did not answer itself, or there is none.
        low, high: ends of the interval; NaN likewise.
    """

    uncertain: Mask
    guarded: Mask
    sets: list[tuple[str, ...] | None]
    low: Floats
    high: Floats

    def take(self, rows: Ints) -> LoggedFindings:
        sets = [self.sets[row] for row in rows.tolist()]
        return LoggedFindings(self.uncertain[rows], self.guarded[rows], sets, self.low[rows], self.high[rows])

    def holds_class(self, truth: Sequence[str | None]) -> Floats:
        """1 where a row's set holds the true class, 0 where not, NaN where either is not known."""
        return np.array(
            [
                np.nan if names is None or name is None else float(name in names)
                for names, name in zip(self.sets, truth, strict=True)
            ]
        )

    def holds_value(self, truth: Floats) -> Floats:
        """The same of intervals and true values, NaN where one is not known."""
        unknown = np.isnan(self.low) | np.isnan(self.high) | np.isnan(truth)
        return np.where(unknown, np.nan, (self.low <= truth) & (truth <= self.high))


def findings_of(
    served_by: Sequence[str],
    guarded: Sequence[Any],
    sets: Sequence[Any],
    low: Sequence[Any],
    high: Sequence[Any],
) -> LoggedFindings:
    """The findings of events, given fields of theirs.

    What a set or an interval holds is counted for the version that answered itself.
    """
    own = np.array([by == "model" for by in served_by], dtype=np.bool_)
    return LoggedFindings(
        uncertain=np.array([names is not None and len(names) != 1 for names in sets], dtype=np.bool_),
        guarded=np.array(guarded, dtype=np.bool_),
        sets=[
            None if names is None or not by_itself else tuple(names)
            for names, by_itself in zip(sets, own.tolist(), strict=True)
        ],
        low=np.where(own, np.array(low, dtype=np.float64), np.nan),
        high=np.where(own, np.array(high, dtype=np.float64), np.nan),
    )
