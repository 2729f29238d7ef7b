"""GUARDS: what looks at rows and answers. Contracts, the scorer and documents have a guard from its entry.

Of several that find something in one answer the first counts.
"""

from __future__ import annotations

from tailrace.contracts.language.durations import Share
from tailrace.contracts.language.guards.domain import DOMAIN
from tailrace.contracts.language.guards.guard import ModelGuard
from tailrace.contracts.language.guards.outputs import PROBABILITIES, SCORE

COVERAGE = ModelGuard(
    "coverage", Share, "certainty", "Share of truths that a prediction set or interval must hold."
)

GUARDS: tuple[ModelGuard, ...] = (
    DOMAIN,
    PROBABILITIES,
    SCORE,
    COVERAGE,
)
