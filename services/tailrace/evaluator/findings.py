"""What the findings of answers say: the flags that the contract's value may read, and sets and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailrace.models.guards.prediction_sets import (
    DOMAIN,
    INTERVAL,
    PROBABILITIES,
    SCORE,
    UNCERTAIN,
    interval_of,
    set_holds,
)
from tailrace.statistics.result import Floats, Mask


@dataclass(frozen=True)
class LoggedFindings:
    """Row by row.

    Attributes:
        uncertain, guarded: as the policy saw them.
        sets: what is said of the set or the interval; empty where the set is the predicted class alone, None where the
            version did not answer itself or says nothing of the kind.
    """

    uncertain: Mask
    guarded: Mask
    sets: list[str | None]

    def take(self, rows: Any) -> LoggedFindings:
        return LoggedFindings(
            self.uncertain[rows], self.guarded[rows], [self.sets[row] for row in rows.tolist()]
        )

    def covered(self, chosen: Sequence[str | None], truth: Sequence[str | float | None]) -> Floats:
        """1 where a row's set or interval holds the truth, 0 where not, NaN where either is not known.

        Args:
            chosen: the predicted class; None of a value.
            truth: the true class or value.
        """
        known: dict[Any, float] = {}
        found = np.full(len(truth), np.nan)
        for row, about in enumerate(zip(self.sets, chosen, truth, strict=True)):
            if about not in known:
                known[about] = _covers(*about)
            found[row] = known[about]
        return found


def _covers(said: str | None, chosen: str | None, truth: str | float | None) -> float:
    if said is None or truth is None:
        return np.nan
    if isinstance(truth, str):
        return float(set_holds(said, truth) if said else chosen == truth)
    try:
        low, high = interval_of(said)
    except ValueError:  # no interval of any scorer's
        return np.nan
    return float(low <= truth <= high)


def findings_of(
    found: Sequence[Sequence[Mapping[str, Any]]], served_by: Sequence[str], with_classes: bool
) -> LoggedFindings:
    """The findings of events, given their guardrails and who answered.

    What a version said and could not be used is not about the answer of its fallback, which stands beside it.
    """
    rows = len(found)
    uncertain, guarded = np.zeros(rows, dtype=np.bool_), np.zeros(rows, dtype=np.bool_)
    sets: list[str | None] = [None] * rows
    for row, (some, by) in enumerate(zip(found, served_by, strict=True)):
        said = {each["guard"]: each["detail"] for each in some}
        uncertain[row] = UNCERTAIN in said
        guarded[row] = DOMAIN in said or (
            by == "model" and not said.keys().isdisjoint((SCORE, PROBABILITIES))
        )
        if by == "model":
            sets[row] = said.get(UNCERTAIN, "") if with_classes else said.get(INTERVAL)
    return LoggedFindings(uncertain, guarded, sets)
