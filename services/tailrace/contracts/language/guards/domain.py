"""Is a row like anything that the model was trained on? By the distance that travels with the package, with as many
false alarms as the contract allows.
"""

from __future__ import annotations

import numpy as np

from tailrace.contracts.language.durations import Share
from tailrace.contracts.language.fields import Section
from tailrace.contracts.language.guards.guard import Finding, GuardedRows, ModelGuard


class Domain(Section):
    false_alarms: Share
    """Share of rows like those in training that may be flagged."""


def far_rows(rule: Domain, rows: GuardedRows) -> dict[int, Finding]:
    """Each row that is further out than rows like those in training are, and the field that is furthest."""
    measured = rows.distances(1.0 - rule.false_alarms)
    if measured is None:
        return {}
    distances, furthest, inputs, usual = measured
    return {
        row: Finding(
            "domain", inputs[furthest[row]], f"distance {distances[row]:.6g}, at most {usual:.6g} is usual"
        )
        for row in np.flatnonzero(distances > usual).tolist()
    }


DOMAIN = ModelGuard("domain", Domain, "rows", "Flags rows that are like nothing in training.", far_rows)
