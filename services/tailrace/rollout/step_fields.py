"""The fields of a rollout step's record that follow from the state before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tailrace.models.rollout_state.fold import RolloutState
from tailrace.rollout.decide import RolloutStep
from tailrace.streaming.records import RecordRef


def step_fields(before: RolloutState, step: RolloutStep) -> dict[str, Any]:
    """What a step makes of the state before it."""
    state = step.state
    experiment = None if state.experiment is None else asdict(state.experiment)
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
        "canary": state.canary and asdict(state.canary),
        "experiment": experiment and {**experiment, "arms": list(experiment["arms"])},
        "reason": step.reason,
    }


def folded_facts(positions: Mapping[str, int], source: RecordRef) -> dict[str, str]:
    """How far each input had been folded when a step was taken, its cause included: for whoever replays it."""
    reached = {**positions, source.topic: source.offset + 1}
    return {f"folded {topic}": str(offset) for topic, offset in sorted(reached.items())}
