"""The fields of a rollout step's record that follow from the state before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tailrace.models.rollout_state.fold import CanaryState, ExperimentState, RolloutState
from tailrace.rollout.decide import RolloutStep
from tailrace.streaming.records import RecordRef


def step_fields(before: RolloutState, step: RolloutStep) -> dict[str, Any]:
    """What a step makes of the state before it."""
    state = step.state
    return {
        "model": state.model,
        "revision": state.revision,
        "follows": before.revision,
        "step": step.name,
        "version": step.version,
        "champion": state.champion,
        "previous": state.previous,
        "shadow": list(state.shadow),
        "candidates": list(state.candidates),
        "rejected": list(state.rejected),
        "retired": list(state.retired),
        "rolled_back": list(state.rolled_back),
        "frozen": state.frozen,
        "off": state.off,
        **_canary_fields(state.canary),
        **_experiment_fields(state.experiment),
        "reason": step.reason,
    }


def _canary_fields(canary: CanaryState | None) -> dict[str, Any]:
    """A step's fields about the canary after it."""
    if canary is None:
        return {"canary": None, "canary_share": 0.0, "canary_salt": "", "canary_step": 0}
    return {
        "canary": canary.version,
        **{f"canary_{n}": getattr(canary, n) for n in ("share", "salt", "step")},
    }


def _experiment_fields(experiment: ExperimentState | None) -> dict[str, Any]:
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
