"""What a batch comes to as it is decided, each decision on top of the one before; it counts once it is committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tailrace.models.rollout_state.fold import Rollouts, RolloutState
from tailrace.rollout.held_contracts import Released
from tailrace.rollout.paired_reports import PairedReports
from tailrace.rollout.refusals import Refusals
from tailrace.streaming.records import Record


@dataclass
class BatchDraft:
    """A batch's decisions.

    ``positions`` are, by input topic, the offset behind what was folded.
    """

    rollouts: Rollouts
    folded: Mapping[str, PairedReports]
    positions: dict[str, int]
    refusals: Refusals
    states: dict[str, RolloutState] = field(default_factory=dict)
    reports: dict[str, PairedReports] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    commands: set[str] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)
    steps: int = 0
    released: set[Released] = field(default_factory=set)

    def state(self, model: str) -> RolloutState:
        return self.states.get(model) or self.rollouts.state(model)

    def reports_so_far(self, model: str) -> PairedReports | None:
        """To be read."""
        return self.reports.get(model) or self.folded.get(model)

    def reports_of(self, model: str) -> PairedReports:
        """To be changed by this batch, and by nothing else."""
        if model not in self.reports:
            self.reports[model] = self.folded[model].copy() if model in self.folded else PairedReports()
        return self.reports[model]

    def sequence(self, model: str) -> int:
        return self.sequences.get(model, self.rollouts.sequences.get(model, 0))

    def is_applied(self, command_id: str) -> bool:
        return command_id in self.commands or command_id in self.rollouts.commands
