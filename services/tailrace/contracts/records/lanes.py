"""Names of topics. A lane is the set of topics of one logical model (or of several that share it)."""

from __future__ import annotations

from typing import NamedTuple

CONTRACTS = "tailrace.contracts"
MANIFESTS = "tailrace.model-manifests"
CHUNKS = "tailrace.model-chunks"
ROLLOUTS = "tailrace.rollouts"
COMMANDS = "tailrace.commands"
ALERTS = "tailrace.alerts"
WINDOW_PARTS = "tailrace.window-parts"
WINDOW_STATE = "tailrace.window-state"
DRIFT_REPORTS = "tailrace.drift-reports"
PERFORMANCE_REPORTS = "tailrace.performance-reports"
TRAINING_RUNS = "tailrace.training-runs"
CLOCKS = "tailrace.clocks"

CONTROL_TOPICS = (
    CONTRACTS,
    MANIFESTS,
    CHUNKS,
    ROLLOUTS,
    COMMANDS,
    ALERTS,
    WINDOW_PARTS,
    WINDOW_STATE,
    DRIFT_REPORTS,
    PERFORMANCE_REPORTS,
    TRAINING_RUNS,
    CLOCKS,
)

LANE_SUFFIXES = (
    "requests",
    "predictions",
    "shadow-predictions",
    "labels",
    "actions",
    "rekeyed",
    "outcomes",
    "dead-letters",
)


class Lane(NamedTuple):
    """The topics of one lane, all with the same number of partitions and keyed by the producer's key."""

    name: str

    @property
    def requests(self) -> str:
        return f"{self.name}.requests"

    @property
    def predictions(self) -> str:
        return f"{self.name}.predictions"

    @property
    def shadow_predictions(self) -> str:
        return f"{self.name}.shadow-predictions"

    @property
    def labels(self) -> str:
        return f"{self.name}.labels"

    @property
    def actions(self) -> str:
        return f"{self.name}.actions"

    @property
    def rekeyed(self) -> str:
        return f"{self.name}.rekeyed"

    @property
    def outcomes(self) -> str:
        return f"{self.name}.outcomes"

    @property
    def dead_letters(self) -> str:
        return f"{self.name}.dead-letters"

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{suffix}" for suffix in LANE_SUFFIXES)
