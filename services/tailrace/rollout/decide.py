"""What follows from what: a model's rollout and what a person or a publication asks give the next step, or a
refusal. What the rollout does by itself is in ``judge.py``.

Plain functions of their arguments, so that the same log leads to the same steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import CommandRecord
from tailrace.models.rollout_state.bandit import in_units
from tailrace.models.rollout_state.fold import (
    CHAMPIONS_ARM,
    PRUNE,
    Arm,
    CanaryState,
    ExperimentState,
    RolloutState,
)

BY_ITSELF = "rollout"
EXPERIMENT = "experiment"
ARM_NAMES = CHAMPIONS_ARM + "bcdefghijklmnopqrstuvwxyz"
RETRAIN = "retrain"
"""The command that is for the trainer."""


@dataclass(frozen=True)
class RolloutStep:
    """The state that the step leads to, what it is called, which version it is about, and why."""

    state: RolloutState
    name: str
    version: int | None
    reason: str


class CommandRefused(Exception):
    """A command is not carried out; the message says why, for people."""


def register(state: RolloutState, version: int) -> RolloutStep:
    """A published version passed its checks: the first one answers, later ones have to prove themselves."""
    if state.champion is None and not state.frozen:
        return first_champion(state, version)
    candidates = (*state.candidates, version)
    return new_step(state, "candidate", version, "it passed its checks", candidates=candidates)


def first_champion(state: RolloutState, version: int) -> RolloutStep:
    """A version answers where none did."""
    reason = "the first version of its model to pass its checks"
    return new_step(_taken_out(state, version), "first-champion", version, reason, champion=version)


def promote(state: RolloutState, version: int, reason: str) -> RolloutStep:
    """A version becomes the champion, and no other answers beside it. The one before it goes on in shadow, kept warm
    for a rollback.
    """
    state = _without_experiment(state)
    former = () if state.champion is None else (state.champion,)
    shadow = (*(v for v in state.shadow if v != version), *former)
    changes = {"champion": version, "previous": state.champion, "shadow": shadow, "canary": None}
    return new_step(_taken_out(state, version), "promote", version, reason, **changes)


def canary(state: RolloutState, version: int, share: float, reason: str) -> RolloutStep:
    """A version in shadow answers a share of the requests as well, or a greater one than before."""
    before = state.canary
    if before is not None and before.version == version:
        now = CanaryState(version, max(share, before.share), before.salt, before.step + 1)
    else:
        now = CanaryState(version, share, _salt(state, version), 1)
    return new_step(state, "canary", version, reason, canary=now)


def back(state: RolloutState, reason: str) -> RolloutStep:
    """The previous version, which there is, answers again."""
    state = _without_experiment(state)
    assert state.previous is not None
    assert state.champion is not None
    rolled_back, previous = (*state.rolled_back, state.champion), state.previous
    changes = {"champion": previous, "previous": None, "rolled_back": rolled_back}
    return new_step(_taken_out(state, previous), "rollback", previous, reason, **changes)


def into_shadow(state: RolloutState, version: int, reason: str) -> RolloutStep:
    """A version scores the requests that the champion answers."""
    taken_out = _taken_out(state, version)
    shadow = (*taken_out.shadow, version)
    return new_step(taken_out, "shadow", version, reason, shadow=shadow, previous=state.previous)


def reject(state: RolloutState, version: int, reason: str) -> RolloutStep:
    """A version is out, for good; where it was an arm, its experiment is over."""
    if state.experiment is not None and version in state.experiment.versions:
        state = _without_experiment(state)
    taken_out = _taken_out(state, version)
    return new_step(taken_out, "reject", version, reason, rejected=(*taken_out.rejected, version))


def retire(state: RolloutState, version: int, reason: str) -> RolloutStep:
    """A version that answered once is kept warm no longer."""
    taken_out = _taken_out(state, version)
    return new_step(taken_out, "retire", version, reason, retired=(*taken_out.retired, version))


def begin_experiment(
    state: RolloutState, versions: Sequence[int], assign: str, share: float, reason: str
) -> RolloutStep:
    """Versions answer beside the champion, each as many keys as it does. They are in no list meanwhile, but for the
    version before the champion, which is kept warm.
    """
    assert state.champion is not None
    begun = state
    for version in versions:
        begun = begun if version == state.previous else _taken_out(begun, version)
    named = zip(ARM_NAMES, (state.champion, *versions), in_units([1.0] * (1 + len(versions))), strict=False)
    arms = tuple(Arm(name, version, probability) for name, version, probability in named)
    now = ExperimentState(assign, share, _salt(state, EXPERIMENT), arms)
    return new_step(begun, EXPERIMENT, None, reason, experiment=now)


def change_arms(state: RolloutState, arms: tuple[Arm, ...], reason: str) -> RolloutStep:
    """An experiment goes on with other probabilities."""
    assert state.experiment is not None
    return new_step(state, "arms", None, reason, experiment=replace(state.experiment, arms=arms))


def end_experiment(state: RolloutState, reason: str) -> RolloutStep:
    """The champion answers everything again."""
    return new_step(_without_experiment(state), "end-experiment", None, reason)


def apply_command(state: RolloutState, command: CommandRecord, contract: ModelContract | None) -> RolloutStep:
    """Carries out a command, under the contract in force.

    Raises:
        CommandRefused: it cannot be carried out, or was given by someone who saw another revision.
    """
    if state.revision == 0:
        raise CommandRefused(f"no version of {state.model} was ever published")
    if command["follows"] is not None and command["follows"] != state.revision:
        raise CommandRefused(
            f"it follows revision {command['follows']}, and revision {state.revision} is in force: look again "
            f"with `tailrace models {state.model}`"
        )
    if command["command"] == EXPERIMENT:
        return _begin(state, command, contract)
    if command["arms"]:
        raise CommandRefused(f"{command['command']} takes no arms")
    carry_out = _COMMANDS.get(command["command"])
    if carry_out is None:
        raise CommandRefused(f"{command['command']!r} is not one of {', '.join([*_COMMANDS, EXPERIMENT])}")
    return carry_out(state, command["version"], command["reason"])


def _begin(state: RolloutState, command: CommandRecord, contract: ModelContract | None) -> RolloutStep:
    plan, arms, model = None if contract is None else contract.experiment, command["arms"], state.model
    if plan is None:
        raise CommandRefused(
            f"the contract of {model} has no experiment: add the section, and `tailrace apply`"
        )
    if state.champion is None:
        raise CommandRefused("no version answers yet that others could be compared with")
    if state.experiment is not None:
        raise CommandRefused(f"an experiment is running: `tailrace experiment {model} stop` ends it")
    if state.canary is not None:
        raise CommandRefused(
            f"version {state.canary.version} answers a share as canary: promote it, or roll back"
        )
    if command["version"] is not None or len(set(arms)) < len(arms) or not 0 < len(arms) < len(ARM_NAMES):
        raise CommandRefused(f"it has to name from 1 to {len(ARM_NAMES) - 1} different arms, and no version")
    for version in arms:
        if _eligible(state, version) == state.champion:
            raise CommandRefused(f"version {version} is the champion, and so an arm already: leave it out")
    return begin_experiment(state, arms, plan.assign, plan.share, command["reason"])


def _end(state: RolloutState, version: int | None, reason: str) -> RolloutStep:
    if state.experiment is None:
        raise CommandRefused("no experiment is running")
    if version is not None:
        raise CommandRefused(f"it concerns all arms: leave version {version} out")
    return end_experiment(state, reason)


def _promote(state: RolloutState, version: int | None, reason: str) -> RolloutStep:
    number = _eligible(state, version)
    if number == state.champion:
        raise CommandRefused(f"version {number} is the champion already")
    return promote(state, number, reason)


def _rollback(state: RolloutState, version: int | None, reason: str) -> RolloutStep:
    if state.experiment is not None:
        return _end(state, version, reason)
    if state.canary is not None:
        if version not in (None, state.champion):
            raise CommandRefused(
                f"version {state.canary.version} answers beside version {state.champion}, and a rollback takes it "
                "back: leave the version out"
            )
        return reject(state, state.canary.version, reason)
    if state.previous is None or state.champion is None:
        raise CommandRefused("there is no previous version to go back to: `tailrace promote` takes any other")
    if version is not None and version != state.previous:
        raise CommandRefused(
            f"the previous version is {state.previous}, not {version}: `tailrace promote` takes any other"
        )
    return back(state, reason)


def _shadow(state: RolloutState, version: int | None, reason: str) -> RolloutStep:
    number = _eligible(state, version)
    if number == state.champion:
        raise CommandRefused(f"version {number} is the champion, it answers already")
    if state.experiment is not None and number in state.experiment.versions:
        raise CommandRefused(f"version {number} is an arm of an experiment, it answers already")
    if number in state.kept:
        raise CommandRefused(f"version {number} is in shadow already, and stays there")
    return into_shadow(state, number, reason)


def _reject(state: RolloutState, version: int | None, reason: str) -> RolloutStep:
    number = _known(state, version)
    if number == state.champion:
        raise CommandRefused(f"version {number} is the champion: roll back or promote another one first")
    if number in state.rejected:
        raise CommandRefused(f"version {number} was rejected already")
    return reject(state, number, reason)


def _prune(state: RolloutState, version: int | None, reason: str) -> RolloutStep:
    """The package of a version may be removed: from now on nothing can bring it back."""
    number = _known(state, version)
    if number in state.in_use:
        raise CommandRefused(f"version {number} is in use: only what is of the past can be removed")
    if number in state.pruned:
        raise CommandRefused(f"the package of version {number} was removed already")
    return new_step(state, PRUNE, number, reason)


def _switch(name: str, field: str, value: bool, already: str) -> Callable[..., RolloutStep]:
    def step(state: RolloutState, version: int | None, reason: str) -> RolloutStep:
        if version is not None:
            raise CommandRefused(f"{name} concerns the whole model: leave version {version} out")
        if getattr(state, field) == value:
            raise CommandRefused(f"{state.model} is {already} already")
        return new_step(state, name, None, reason, **{field: value})

    return step


_COMMANDS: dict[str, Callable[[RolloutState, int | None, str], RolloutStep]] = {
    "promote": _promote,
    "rollback": _rollback,
    "shadow": _shadow,
    "reject": _reject,
    PRUNE: _prune,
    "end-experiment": _end,
    "freeze": _switch("freeze", "frozen", True, "frozen"),
    "unfreeze": _switch("unfreeze", "frozen", False, "not frozen"),
    "off": _switch("off", "off", True, "off"),
    "on": _switch("on", "off", False, "on"),
}


def newly_serving(before: RolloutState, step: RolloutStep) -> frozenset[int]:
    """The versions that a step makes champion, lets answer beside it, or puts into shadow to be compared."""
    after = step.state
    if step.name == "on":
        return after.answering
    named = {step.version} if step.name == "shadow" else {after.champion} - {before.champion}
    return frozenset(version for version in named if version is not None) | after.answering - before.answering


def new_step(state: RolloutState, name: str, version: int | None, reason: str, **changes: Any) -> RolloutStep:
    """The lists of the state changed, under the next revision. What follows from the steps themselves is the
    fold's (see ``state_after``).
    """
    return RolloutStep(replace(state, revision=state.revision + 1, **changes), name, version, reason)


def _taken_out(state: RolloutState, version: int) -> RolloutState:
    """The state with a version in none of the lists, answering no share, and not the one to go back to."""
    lists = ("shadow", "candidates", "rejected", "retired", "rolled_back")
    kept: dict[str, Any] = {name: tuple(v for v in getattr(state, name) if v != version) for name in lists}
    kept["previous"] = None if state.previous == version else state.previous
    if state.canary is not None and state.canary.version == version:
        kept["canary"] = None
    return replace(state, **kept)


def _without_experiment(state: RolloutState) -> RolloutState:
    """The state with no arm but the champion; those that are not the version before it are kept warm no longer."""
    if state.experiment is None:
        return state
    gone = tuple(version for version in state.experiment.versions if version != state.previous)
    return replace(state, experiment=None, retired=(*state.retired, *gone))


def _salt(state: RolloutState, about: object) -> str:
    return hashlib.sha256(f"{state.model}|{about}|{state.revision}".encode()).hexdigest()[:16]


def _known(state: RolloutState, version: int | None) -> int:
    if version is None:
        raise CommandRefused("it has to name a version")
    if version not in state.known:
        raise CommandRefused(
            f"there is no version {version} of {state.model}: see `tailrace models {state.model}`"
        )
    return version


def _eligible(state: RolloutState, version: int | None) -> int:
    """A known version that may answer or shadow."""
    number = _known(state, version)
    if number in state.pruned:
        raise CommandRefused(
            f"the package of version {number} was removed by `tailrace models {state.model} --prune`: publish the "
            "model again as a new version"
        )
    if number in state.rejected:
        raise CommandRefused(f"version {number} was rejected; publish it again as a new version")
    return number
