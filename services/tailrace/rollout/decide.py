"""What follows from what: a model's rollout and one thing that happened give the next step, or a refusal.

Plain functions of their arguments, so that the same log leads to the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tailrace.models.rollout_fold import RolloutState

BY_ITSELF = "rollout"


@dataclass(frozen=True)
class Step:
    """The state that the step leads to, what it is called, which version it is about, and why."""

    state: RolloutState
    name: str
    version: int
    reason: str


class CommandRefused(Exception):
    """A command is not carried out; the message says why, for people."""


def admit(state: RolloutState, version: int) -> Step:
    """A published version passed its checks: the first one answers, later ones wait for a person."""
    state = replace(state, known=state.known | {version})
    if state.champion is None and not (state.frozen or state.off):
        after = _next(state, champion=version)
        return Step(after, "first-champion", version, "the first version of its model to pass its checks")
    after = _next(state, candidates=(*state.candidates, version))
    return Step(after, "candidate", version, f"waits for `tailrace promote {state.model} {version}`")


def refuse(state: RolloutState, version: int, why: str) -> Step:
    """A published version did not pass its checks."""
    state = replace(state, known=state.known | {version})
    return Step(_next(state, rejected=(*state.rejected, version)), "reject", version, why)


def obey(state: RolloutState, command: Mapping[str, Any]) -> Step:
    """Carries out a command.

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
    carry_out = _COMMANDS.get(command["command"])
    if carry_out is None:
        raise CommandRefused(f"{command['command']!r} is not one of {', '.join(_COMMANDS)}")
    return carry_out(state, command["version"], command["reason"])


def _promote(state: RolloutState, version: int | None, reason: str) -> Step:
    number = _known(state, version)
    if number in state.rejected:
        raise CommandRefused(f"version {number} was rejected; publish it again as a new version")
    if number == state.champion:
        raise CommandRefused(f"version {number} is the champion already")
    after = _next(
        state,
        champion=number,
        previous=state.champion,
        candidates=_less(state.candidates, number),
        shadow=_less(state.shadow, number),
    )
    return Step(after, "promote", number, reason)


def _rollback(state: RolloutState, version: int | None, reason: str) -> Step:
    if state.previous is None or state.champion is None:
        raise CommandRefused("there is no previous version to go back to: `tailrace promote` takes any other")
    if version is not None and version != state.previous:
        raise CommandRefused(
            f"the previous version is {state.previous}, not {version}: `tailrace promote` takes any other"
        )
    after = _next(
        state,
        champion=state.previous,
        previous=None,
        candidates=(*state.candidates, state.champion),
        shadow=_less(state.shadow, state.previous),
    )
    return Step(after, "rollback", state.previous, reason)


def _shadow(state: RolloutState, version: int | None, reason: str) -> Step:
    number = _known(state, version)
    if number in state.rejected:
        raise CommandRefused(f"version {number} was rejected; publish it again as a new version")
    if number == state.champion:
        raise CommandRefused(f"version {number} is the champion, it answers already")
    if number in state.shadow:
        raise CommandRefused(f"version {number} is in shadow already")
    after = _next(state, candidates=_less(state.candidates, number), shadow=(*state.shadow, number))
    return Step(after, "shadow", number, reason)


def _reject(state: RolloutState, version: int | None, reason: str) -> Step:
    number = _known(state, version)
    if number == state.champion:
        raise CommandRefused(f"version {number} is the champion: roll back or promote another one first")
    if number in state.rejected:
        raise CommandRefused(f"version {number} was rejected already")
    after = _next(
        state,
        previous=None if state.previous == number else state.previous,
        candidates=_less(state.candidates, number),
        shadow=_less(state.shadow, number),
        rejected=(*state.rejected, number),
    )
    return Step(after, "reject", number, reason)


_COMMANDS = {"promote": _promote, "rollback": _rollback, "shadow": _shadow, "reject": _reject}


def _next(state: RolloutState, **changes: Any) -> RolloutState:
    return replace(state, revision=state.revision + 1, **changes)


def _known(state: RolloutState, version: int | None) -> int:
    if version is None:
        raise CommandRefused("it has to name a version")
    if version not in state.known:
        raise CommandRefused(
            f"there is no version {version} of {state.model}: see `tailrace models {state.model}`"
        )
    return version


def _less(versions: tuple[int, ...], version: int) -> tuple[int, ...]:
    return tuple(v for v in versions if v != version)
