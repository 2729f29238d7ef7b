"""What a step commits with its offsets, and as the store's standing: from where its inputs are read again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tailrace.joiner.intake import PendingFeedback
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.partition_state import PREDICTIONS, Facts, PartitionState
from tailrace.joiner.progress import NEVER, Progress


def offset_metadata(
    lane: LaneContracts, standing: PartitionState, before: Progress, inputs: Collection[str], has_output: bool
) -> dict[str, str]:
    """The metadata of the inputs with whose offsets something is to be committed.

    Args:
        before: how far the partition had come before the step.
        inputs: of which something was read.
        has_output: the step writes something.
    """
    names, progress = set(inputs), standing.progress
    is_news = has_output or before != progress
    if before.released != progress.released or (not inputs and is_news):
        names.add(PREDICTIONS)
    return {name: _facts(lane, standing, name).to_metadata() for name in names}


def _facts(lane: LaneContracts, standing: PartitionState, name: str) -> Facts:
    progress = standing.progress
    floor = min(standing.floor(), progress.closed[0] - 1, progress.swept[0] + lane.lateness)
    before = NEVER if standing.floor() == NEVER else floor - 2 * lane.horizon - lane.lateness
    clock, start = standing.restart(name, before)
    if name == PREDICTIONS:
        return Facts(start, clock, progress, standing.sources)
    return Facts(start, clock, replace(progress, released={}))


def restartable(standing: PartitionState, held: Sequence[PendingFeedback]) -> bytes:
    """The standing for the store. What is held is not stored: inputs are read again from the first that is."""
    stored = standing.copy()
    for one in sorted(held, key=lambda one: -one.offset):
        stored.offsets[one.input] = one.offset
        stored.clocks[one.input] = one.before
    return stored.pack()
