"""Names of topics. A lane is the set of topics of one logical model (or of several that share it)."""

from __future__ import annotations

from dataclasses import dataclass

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


class _LaneTopic:
    """A topic of a lane, named as the attribute is."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.suffix = name.replace("_", "-")

    def __get__(self, lane: Lane, owner: type) -> str:
        return f"{lane.name}.{self.suffix}"


@dataclass(frozen=True, order=True)
class Lane:
    """The topics of one lane, all with the same number of partitions and keyed by the producer's key."""

    name: str

    requests = _LaneTopic()
    predictions = _LaneTopic()
    shadow_predictions = _LaneTopic()
    labels = _LaneTopic()
    actions = _LaneTopic()
    rekeyed = _LaneTopic()
    outcomes = _LaneTopic()
    dead_letters = _LaneTopic()

    @classmethod
    def of(cls, topic: str) -> Lane:
        """The lane that a topic is of."""
        return cls(topic.rpartition(".")[0])

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{suffix}" for suffix in LANE_SUFFIXES)


LANE_SUFFIXES = tuple(topic.suffix for topic in vars(Lane).values() if isinstance(topic, _LaneTopic))
