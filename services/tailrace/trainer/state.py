"""What the trainer knows: the fold of what happened, the same in whatever order the topics are read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tailrace.contracts.state.contracts import AppliedContract
from tailrace.trainer.happened import (
    Alerted,
    Applied,
    Asked,
    CommandAnswered,
    DriftJudged,
    Event,
    HeldBack,
    RunStep,
    Stepped,
    WindowJudged,
)
from tailrace.trainer.run import ORDER, OpenTrigger, Run

_Window = tuple[int, int, str, str, int]  # start, version, role, contract digest, judged at


@dataclass(frozen=True)
class ModelState:
    """What is known about one model. ``windows`` are the judged windows; ``resolved`` are ids of alerts; ``held_back``
    is the run of which an open alert says that it is not planned while the model is frozen.
    """

    contract: AppliedContract | None = None
    alerts: Mapping[str, OpenTrigger] = field(default_factory=dict)
    resolved: frozenset[str] = frozenset()
    windows: Mapping[_Window, WindowJudged] = field(default_factory=dict)
    drift_until: int = -1
    asked: Mapping[str, Asked] = field(default_factory=dict)
    champion: int | None = None
    rejected: frozenset[int] = frozenset()
    frozen: bool = False
    held_back: str | None = None
    runs: Mapping[str, Run] = field(default_factory=dict)

    @property
    def begin(self) -> int:
        """Of the first window."""
        return min((w.window_start for w in self.windows.values()), default=0)

    @property
    def last_run(self) -> Run | None:
        return max(self.runs.values(), key=lambda run: run.cut, default=None)


@dataclass(frozen=True)
class State:
    models: Mapping[str, ModelState] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()

    def of(self, model: str) -> ModelState:
        return self.models.get(model) or ModelState()

    @property
    def runs(self) -> Iterator[Run]:
        return itertools.chain.from_iterable(m.runs.values() for m in self.models.values())


def fold(state: State, event: Event) -> State:
    """The state after something that happened."""
    if isinstance(event, CommandAnswered):
        return replace(state, answered=state.answered | {event.command_id})
    about: Any = event.contract if isinstance(event, Applied) else event
    model: str = event.run.model if isinstance(event, RunStep) else about.model
    return replace(state, models={**state.models, model: _fold(state.of(model), event)})


def _fold(known: ModelState, event: Event) -> ModelState:
    match event:
        case Applied(contract):
            return replace(known, contract=contract)
        case Alerted(_, trigger, resolved):
            if resolved:
                return replace(known, resolved=known.resolved | {trigger.id})
            first = known.alerts.get(trigger.id)
            if first is not None and first.at <= trigger.at:
                return known  # it lasts, and is sent again
            return replace(known, alerts={**known.alerts, trigger.id: trigger})
        case WindowJudged():
            at = (event.window_start, event.version, event.role, event.contract_digest, event.judged_at)
            return replace(known, windows={**known.windows, at: event})
        case DriftJudged(_, until):
            return replace(known, drift_until=max(known.drift_until, until))
        case Asked(_, command_id):
            return replace(known, asked={command_id: event, **known.asked})
        case Stepped(_, step, version, champion, frozen):
            refused = {"reject": version, "rollback": known.champion}.get(step)
            more = known.rejected if refused is None else known.rejected | {refused}
            return replace(known, champion=champion, rejected=more, frozen=frozen)
        case HeldBack(_, held_back, resolved):
            if resolved and held_back != known.held_back:
                return known
            return replace(known, held_back=None if resolved else held_back)
        case RunStep(run):
            return replace(known, runs={**known.runs, run.run_id: _advanced(known.runs.get(run.run_id), run)})
    return known


def _advanced(before: Run | None, step: Run) -> Run:
    """The first plan counts, and a run never goes back."""
    if before is None:
        return step
    if ORDER[step.state] <= ORDER[before.state]:
        return before
    return replace(
        before, state=step.state, version=step.version, evaluations=step.evaluations or before.evaluations
    )
