"""What a step commits with its offsets, and as the store's state: from where its inputs are restored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tailrace.joiner.intake import PendingFeedback
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.partition_state import PREDICTIONS, Facts, PartitionState
from tailrace.joiner.progress import NEVER, Progress


def offset_metadata(
    lane: LaneContracts, state: PartitionState, before: Progress, inputs: Collection[str], has_output: bool
) -> dict[str, str]:
    """The metadata of the inputs with whose offsets something is to be committed: those that were read, and the
    predictions where the step writes something or is further than ``before`` it.
    """
    names, progress = set(inputs), state.progress
    is_news = has_output or before != progress
    if before.released != progress.released or (not inputs and is_news):
        names.add(PREDICTIONS)
    return {name: _facts(lane, state, name).to_metadata() for name in names}


def _facts(lane: LaneContracts, state: PartitionState, name: str) -> Facts:
    progress = state.progress
    floor = min(state.floor(), progress.closed[0] - 1, progress.swept[0] + lane.lateness)
    before = NEVER if state.floor() == NEVER else floor - 2 * lane.horizon - lane.lateness
    stream_time, start = state.restart(name, before)
    if name == PREDICTIONS:
        return Facts(start, stream_time, progress, state.sources)
    return Facts(start, stream_time, replace(progress, released={}))


def restartable(state: PartitionState, pending: Sequence[PendingFeedback]) -> bytes:
    """The state for the store. What is pending is not stored: inputs are read again from the first that is."""
    stored = state.copy()
    for feedback in sorted(pending, key=lambda feedback: -feedback.offset):
        stored.offsets[feedback.input] = feedback.offset
        stored.stream_times[feedback.input] = feedback.before
    return stored.pack()
