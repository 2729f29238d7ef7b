"""What can happen that the trainer decides on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from tailrace.contracts.state.contracts import AppliedContract
from tailrace.trainer.run import OpenTrigger, Run


@dataclass(frozen=True)
class Applied:
    """A contract came into force."""

    contract: AppliedContract


@dataclass(frozen=True)
class Alerted:
    """A drift or quality alert was raised, or (``resolved``) is over."""

    model: str
    trigger: OpenTrigger
    resolved: bool = False


@dataclass(frozen=True)
class WindowJudged:
    """A window of predictions that were answers was judged at one of its ages: how many truths were known by then."""

    model: str
    version: int
    role: str
    contract_digest: str
    window_start: int
    window_end: int
    judged_at: int
    labelled: int
    mature: bool


@dataclass(frozen=True)
class DriftJudged:
    """Drift was judged for the windows up to ``until``; all alerts of them are written."""

    model: str
    until: int


@dataclass(frozen=True)
class Asked:
    """A person asks for a run; ``refusal`` says why not to listen."""

    model: str
    command_id: str
    reason: str
    refusal: str | None = None


@dataclass(frozen=True)
class CommandAnswered:
    """A command was refused before."""

    command_id: str


@dataclass(frozen=True)
class Stepped:
    """The rollout took a step about a version; ``champion`` is what answers after it, and ``frozen`` whether nothing
    goes on by itself from then on.
    """

    model: str
    step: str
    version: int | None
    champion: int | None
    frozen: bool = False


@dataclass(frozen=True)
class HeldBack:
    """An alert says that a run is due and not planned, since the model is frozen; or, ``resolved``, that it is over."""

    model: str
    run_id: str
    resolved: bool


@dataclass(frozen=True)
class RunStep:
    """A record of ``tailrace.training-runs``."""

    run: Run


@dataclass(frozen=True)
class CaughtUp:
    """Everything was read that was on any topic when the last of what is known had been read."""


Event: TypeAlias = (
    Applied
    | Alerted
    | WindowJudged
    | DriftJudged
    | Asked
    | CommandAnswered
    | Stepped
    | HeldBack
    | RunStep
    | CaughtUp
)
