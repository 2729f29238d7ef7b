"""A training run, what has become of it, and the reasons for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tailrace.contracts.records.record_types import EvaluationRecord
from tailrace.streaming.ids import record_id

Kind = Literal["drift", "quality", "every", "labels", "command"]

PLANNED, TRAINING, TRAINED = "planned", "training", "trained"
PUBLISHED, REJECTED, FAILED = "published", "rejected", "failed"
ENDS = (PUBLISHED, REJECTED, FAILED)
ORDER = {PLANNED: 0, TRAINING: 1, TRAINED: 2, **dict.fromkeys(ENDS, 3)}
"""A run's state never goes back in it."""


@dataclass(frozen=True)
class OpenTrigger:
    """A reason to train, open until a run answers it.

    Attributes:
        at: event time from which on there is a reason.
        changed_at: event time from which on the world counts as changed.
        version: what an alert is about.
        labels: how many mature labels it takes at least, where it is these that it waits for.
    """

    kind: Kind
    id: str
    at: int
    changed_at: int
    reason: str
    version: int | None = None
    labels: int = 0


@dataclass(frozen=True)
class Run:
    """A training run as its plan says, and what has become of it (see ``training_run.avsc``).

    Attributes:
        cut: labels known before this event time count.
        evaluations: how the candidate did, once it is trained, as on the topic.
    """

    run_id: str
    model: str
    cut: int
    triggers: tuple[OpenTrigger, ...]
    changed_at: int
    window_start: int
    window_end: int
    labels: int
    contract_digest: str
    champion: int | None
    offsets: tuple[tuple[int, int], ...] = ()
    state: str = PLANNED
    version: int | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()

    @property
    def seed(self) -> int:
        """Of everything random in the run."""
        return int(self.run_id[:7], 16)


def run_id(model: str, cut: int) -> str:
    return record_id(model, cut)
