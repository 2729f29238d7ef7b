"""One partition of a lane: its requests, where it stands, and how it gets there again after a restart."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tailrace.errors import DiskFailed, StateLost, Unavailable
from tailrace.joiner.intake import PendingFeedback
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.partition_state import ACTIONS, LABELS, PREDICTIONS, Facts, PartitionState
from tailrace.joiner.progress import NEVER, Order, Progress
from tailrace.joiner.step import PartitionStep, StepResult
from tailrace.joiner.store import STANDING, KeyValueStore
from tailrace.joiner.watermarks import MARK_EVERY_MS
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.bounds import Budget
from tailrace.streaming.records import Message

log = logging.getLogger(__name__)

_NOTHING: Order = (NEVER, 0, 0, 0)
MOST_HELD = 100_000
"""So many labels and actions are kept in memory, or a little more, before reading them pauses."""


class LanePartition:
    """The partitions of one number of a lane's inputs.

    Args:
        store: what an earlier owner left, if anything.
        committed: of each input by suffix.
    """

    def __init__(
        self,
        lane: LaneContracts,
        number: int,
        partitions: int,
        store: KeyValueStore,
        committed: Mapping[str, Committed],
    ) -> None:
        self.number = number
        self._lane = lane
        self._partitions = partitions
        self._store = store
        self._held: list[PendingFeedback] = []
        facts = {name: Facts.of(found) for name, found in committed.items()}
        # So far had what is due been worked off, and champions been read, when all of the history was in.
        self._until = Progress.furthest(f.progress for f in facts.values())
        self._sources = facts[PREDICTIONS].sources if PREDICTIONS in facts else {}
        found = self._left(facts, committed)
        if found is None:
            store.wipe()
            found = _from(facts)
        self._standing = found
        self._skip_before: Order = found.progress.applied
        self.history = {
            name: (found.offsets[name], committed[name].offset)
            for name in committed
            if found.offsets[name] < committed[name].offset
        }
        self._is_restoring = True
        self._more = True

    def _left(self, facts: Mapping[str, Facts], committed: Mapping[str, Committed]) -> PartitionState | None:
        """Where the store stands, if the log leads on from there to what is committed."""
        try:
            data = self._store.get(STANDING)
        except StateLost:
            return None
        found = None if data is None else PartitionState.unpack(data)
        if found is None or found.offsets.keys() != committed.keys():
            return None
        for name, offset in found.offsets.items():
            if not facts[name].start <= offset <= committed[name].offset:
                return None
        return found if found.progress.is_before(self._until) else None

    def restore(self, name: str, messages: Sequence[Message], budget: Budget) -> bool:
        """Takes history of one input; what comes of it was written by who read it first. Whether more is due of it.

        Raises:
            Unavailable, StateLost: as `PartitionStep.run`.
        """
        try:
            self.apply(self._step(budget, until=self._until).run({name: messages} if messages else {}))
        except (Unavailable, StateLost, DiskFailed):
            raise
        except Exception:
            # One of them stopped a process before and was quarantined: there was nothing else to make of it.
            if len(messages) == 1:
                log.exception("a record of the history is left out")
                return False
            if not messages:
                raise
            middle = len(messages) // 2
            self.restore(name, messages[:middle], budget)
            self.restore(name, messages[middle:], budget)
        return self._more

    def due(self) -> bool:
        """Whether what has been read by now makes more due than has been worked off."""
        return self._is_restoring or self._more

    def ahead(self) -> dict[str, str]:
        """Inputs that are not to be read on for now, and why: too much that was read waits for a slower clock.

        The slowest input is never among them, as far as its clock has been told.
        """
        if len(self._held) < MOST_HELD:
            return {}
        clocks = {name: self._standing.clocks[name] for name in (LABELS, ACTIONS)}
        reached = self._standing.progress.applied[0] + 2 * MARK_EVERY_MS
        why = f"{len(self._held):,} labels and actions wait for the clock of {self._standing.slowest(self.number)}"
        return {name: why for name, clock in clocks.items() if clock >= reached}

    def process(self, inputs: Mapping[str, Sequence[Message]], budget: Budget) -> StepResult | None:
        """What a batch comes to, or without one some of what is due; `apply` it when it is committed.

        None where all that could be done was to do again what is committed.

        Raises:
            Unavailable, StateLost: as `PartitionStep.run`.
        """
        while self._is_restoring:
            self._catch_up(budget)
            if not inputs:
                return None
        return self._step(budget).run(inputs)

    def _catch_up(self, budget: Budget) -> None:
        """Does again what was done when all of the history was in."""
        for partition, offset in self._sources.items():
            known = self._standing.sources.get(partition, -1)
            self._standing.sources[partition] = max(known, offset)
        self.apply(self._step(budget, until=self._until, is_all_read=True).run({}))
        if self._more:
            return
        self._is_restoring = False
        self._more = True
        self._skip_before = _NOTHING
        # What was said to others is said once more.
        self._standing.announced = dict.fromkeys(self._standing.announced, NEVER)
        self._standing.marked = dict.fromkeys(self._standing.marked, NEVER)

    def _step(
        self, budget: Budget, *, until: Progress | None = None, is_all_read: bool = False
    ) -> PartitionStep:
        return PartitionStep(
            self._lane,
            self.number,
            self._partitions,
            self._store,
            self._standing,
            self._held,
            budget,
            skip_before=self._skip_before,
            until=until,
            is_all_read=is_all_read,
        )

    def apply(self, result: StepResult) -> None:
        """Takes the step."""
        self._store.write(result.puts, result.deletes)
        self._standing = result.standing
        self._held = result.held
        self._more = result.more

    def close(self) -> None:
        self._store.close()


def _from(facts: Mapping[str, Facts]) -> PartitionState:
    """Where to begin without a store."""
    standing = PartitionState()
    for name, fact in facts.items():
        standing.offsets[name] = fact.start
        standing.clocks[name] = fact.clock
        standing.checkpoints[name] = [(fact.clock, fact.start)]
    return standing
