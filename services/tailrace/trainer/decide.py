"""What follows from what: the trainer's state and one thing that happened give the new state and what is to be done.

A plain function, so that the same records lead to the same runs. It is canonical: in whatever order the topics are
read against each other, and however often a record comes again, the runs are those that their event times say. Two
things make it so. Nothing is decided before ``CaughtUp``, which says that every topic was read to an end that lay
behind everything read before; and a run's cut is looked for in the history of closed windows, not in the moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.trainer.happened import Asked, CaughtUp, Event, WindowJudged
from tailrace.trainer.run import ENDS, OpenTrigger, Run, run_id
from tailrace.trainer.state import ModelState, State, fold
from tailrace.trainer.triggers import open_triggers


@dataclass(frozen=True)
class WritePlan:
    """Write this plan."""

    run: Run


@dataclass(frozen=True)
class StartRun:
    """Do this run, which is planned and not at its end."""

    run: Run


@dataclass(frozen=True)
class Refuse:
    """Tell who asked why there is no run."""

    asked: Asked
    why: str


@dataclass(frozen=True)
class HoldRun:
    """Say that this run is due, and is not planned while the model is frozen."""

    model: str
    run_id: str
    reason: str


@dataclass(frozen=True)
class ReleaseRun:
    """Say that a run of which this was said is held back no more."""

    model: str
    run_id: str


Action: TypeAlias = WritePlan | StartRun | Refuse | HoldRun | ReleaseRun


def decide(state: State, event: Event) -> tuple[State, list[Action]]:
    """The new state, and what is to be done: nothing but after ``CaughtUp``."""
    if isinstance(event, CaughtUp):
        return state, [action for model in sorted(state.models) for action in _due(state, model)]
    return fold(state, event), []


def expecting(state: State) -> bool:
    """Whether a run may come any time: windows of some model are judged, and its contract has triggers."""
    return any(
        known.windows and known.contract is not None and known.contract.contract.training.triggers
        for known in state.models.values()
    )


def _due(state: State, model: str) -> Iterator[Action]:
    known = state.of(model)
    by_cut = sorted(known.runs.values(), key=lambda run: run.cut)
    yield from (StartRun(run) for run in by_cut if run.state not in ENDS)
    if known.contract is None:
        return
    commanded = {t.id for run in known.runs.values() for t in run.triggers}
    for asked in known.asked.values():
        if asked.command_id in state.answered or asked.command_id in commanded:
            continue
        yield _answer(model, known, known.contract.contract, asked)
        return  # the next one when this answer is read
    plan = _next_run(model, known, known.contract.contract)
    held_back = plan.run_id if plan is not None and known.frozen else None
    if known.held_back is not None and known.held_back != held_back:
        yield ReleaseRun(model, known.held_back)
    if plan is None:
        return
    if not known.frozen:
        yield WritePlan(plan)
    elif known.held_back != held_back:
        yield HoldRun(model, plan.run_id, "; ".join(trigger.reason for trigger in plan.triggers))


def _answer(model: str, known: ModelState, contract: ModelContract, asked: Asked) -> Action:
    if asked.refusal is not None:
        return Refuse(asked, asked.refusal)
    cut = max((w.judged_at for w in known.windows.values()), default=None)
    if cut is None:
        return Refuse(asked, f"no window of {model} has been judged yet, so there is nothing to train on")
    if run_id(model, cut) in known.runs:
        return Refuse(asked, f"run {run_id(model, cut)} was made from the same labels; wait for more")
    trigger = OpenTrigger("command", asked.command_id, cut, known.begin, asked.reason)
    run = _earliest(model, known, contract, trigger, cut)
    if run is None:
        return Refuse(
            asked,
            f"there are fewer mature labels than the {contract.training.min_labels:,} that training.min_labels asks "
            "for: ask again later, or lower it in the contract",
        )
    return WritePlan(run)


def _next_run(model: str, known: ModelState, contract: ModelContract) -> Run | None:
    """The earliest run that an open trigger leads to, once nothing can come that would have led to an earlier one.

    One at a time: what comes of a run decides what is still to be answered.
    """
    last = known.last_run
    if last is not None and last.state not in ENDS:
        return None
    floor = 0 if last is None else last.cut + contract.training.cooldown_ms
    runs = [
        run
        for trigger in open_triggers(known, contract)
        if (run := _earliest(model, known, contract, trigger, max(trigger.at, floor))) is not None
    ]
    if not runs:
        return None
    first = min(runs, key=lambda run: (run.cut, run.triggers[0].at, run.triggers[0].kind, run.triggers[0].id))
    return first if _alerts_known(known, contract, first.cut) else None


def _alerts_known(known: ModelState, contract: ModelContract, cut: int) -> bool:
    """Whether all drift alerts up to the cut are known: drift has come as far, or is a cool-down behind and may be
    gone for good. (Quality alerts are written together with the reports that the cut is found in.)
    """
    if all(trigger.drift is None for trigger in contract.training.triggers):
        return True
    if known.drift_until + contract.drift.window_ms > cut:
        return True
    return max(w.judged_at for w in known.windows.values()) >= cut + contract.training.cooldown_ms


def _earliest(
    model: str, known: ModelState, contract: ModelContract, trigger: OpenTrigger, not_before: int
) -> Run | None:
    """The run whose cut is the earliest at which enough mature labels from after the change are known."""
    training = contract.training
    least = max(training.min_labels, trigger.labels)
    latest: dict[tuple[int, int, str, str], WindowJudged] = {}
    in_order = sorted(known.windows.values(), key=lambda w: w.judged_at)
    for cut, judged in itertools.groupby(in_order, key=lambda w: w.judged_at):
        for w in judged:
            if w.window_start >= trigger.changed_at:
                latest[w.window_start, w.version, w.role, w.contract_digest] = w
        if cut < not_before:
            continue
        mature = [w for w in latest.values() if w.mature]
        end = max((w.window_end for w in mature), default=0)
        start = max(end - training.window_ms, trigger.changed_at)
        labels = sum(w.labelled for w in mature if w.window_start >= start)
        if labels >= least:
            others = (t for t in open_triggers(known, contract) if t.id != trigger.id)
            also = [t for t in others if t.at <= cut and not t.labels]
            assert known.contract is not None
            return Run(
                run_id=run_id(model, cut),
                model=model,
                cut=cut,
                triggers=(trigger, *also),
                changed_at=trigger.changed_at,
                window_start=start,
                window_end=end,
                labels=labels,
                contract_digest=known.contract.digest,
                champion=known.champion,
            )
    return None
