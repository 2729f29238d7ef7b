"""The fields of a rollout step's record that follow from parts of the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tailrace.models.rollout_state.fold import CanaryState, ExperimentState
from tailrace.streaming.records import RecordRef


def canary_fields(canary: CanaryState | None) -> dict[str, Any]:
    """A step's fields about the canary after it."""
    if canary is None:
        return {"canary": None, "canary_share": 0.0, "canary_salt": "", "canary_step": 0}
    return {
        "canary": canary.version,
        **{f"canary_{n}": getattr(canary, n) for n in ("share", "salt", "step")},
    }


def experiment_fields(experiment: ExperimentState | None) -> dict[str, Any]:
    """A step's fields about the experiment after it."""
    if experiment is None:
        return {"experiment": "", "experiment_share": 0.0, "experiment_salt": "", "arms": []}
    return {
        "experiment": experiment.assign,
        "experiment_share": experiment.share,
        "experiment_salt": experiment.salt,
        "arms": [asdict(arm) for arm in experiment.arms],
    }


def folded_facts(positions: Mapping[str, int], source: RecordRef) -> dict[str, str]:
    """How far each input had been folded when a step was taken, its cause included: for whoever replays it."""
    reached = {**positions, source.topic: source.offset + 1}
    return {f"folded {topic}": str(offset) for topic, offset in sorted(reached.items())}
