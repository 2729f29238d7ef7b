"""The fold of ``tailrace.rollouts``: which versions of each model answer, wait, shadow or were refused."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tailrace.contracts.records.lanes import ROLLOUTS
from tailrace.contracts.records.record_types import RolloutRecord
from tailrace.contracts.state.checks import EVENT_TIME, SEQUENCE

PRUNE = "prune"
"""The step after which a version's package may be gone."""
CHAMPIONS_ARM = "a"
"""The name of the champion's arm in an experiment."""


@dataclass(frozen=True)
class CanaryState:
    """The version that answers the share of the requests whose keys, hashed with the salt, come first.

    ``step`` is which of the contract's steps it has reached, from 1.
    """

    version: int
    share: float
    salt: str
    step: int


@dataclass(frozen=True)
class Arm:
    """A version in an experiment, and with what probability a key of the experiment goes to it.

    The other fields are what is known of its worth (see ``rollout.avsc``); None while too little is.
    """

    arm: str
    version: int
    probability: float
    requests: int = 0
    mean: float | None = None
    deviation: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class ExperimentState:
    """Versions that each answer some of the keys: the champion first (``CHAMPIONS_ARM``).

    Keys whose hash with the salt lies below ``share`` take part; the champion answers the others.
    """

    assign: str
    share: float
    salt: str
    arms: tuple[Arm, ...]

    @property
    def versions(self) -> tuple[int, ...]:
        """All but the champion's."""
        return tuple(arm.version for arm in self.arms[1:])


@dataclass(frozen=True)
class RolloutState:
    """The state of one model's rollout after its latest step; revision 0 before the first.

    Attributes:
        known: all versions that some step was about: also those that are nowhere now.
        served: versions that answered at some time.
        kept: versions in shadow because a person asked for it.
        waiting: versions in shadow that passed, and that a person has to promote.
        pruned: versions whose packages were removed, which cannot come back.
        promoted_at: how far judged event time had come when the champion became it, in ms; None where it is not known.
        canary: the version that answers a share of the requests beside the champion. It is in shadow as well.
        canary_began: how far judged event time had come when it did so first, and ``canary_since`` when it
            reached its present step, in ms; None where there is none, or it is not known.
        experiment: the arms that answer beside the champion, which is one of them; ``experiment_began`` is how far
            judged event time had come when it began.
    """

    model: str
    revision: int = 0
    champion: int | None = None
    previous: int | None = None
    shadow: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()
    retired: tuple[int, ...] = ()
    rolled_back: tuple[int, ...] = ()
    frozen: bool = False
    off: bool = False
    known: frozenset[int] = frozenset()
    served: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()
    waiting: frozenset[int] = frozenset()
    pruned: frozenset[int] = frozenset()
    promoted_at: int | None = None
    canary: CanaryState | None = None
    canary_began: int | None = None
    canary_since: int | None = None
    experiment: ExperimentState | None = None
    experiment_began: int | None = None

    @property
    def answering(self) -> frozenset[int]:
        """The versions that answer, unless the model is off: the champion, and what answers beside it."""
        canary = None if self.canary is None else self.canary.version
        arms = () if self.experiment is None else self.experiment.versions
        return frozenset(version for version in (self.champion, canary, *arms) if version is not None)

    @property
    def in_use(self) -> frozenset[int]:
        """The versions that score, are kept warm, or wait to."""
        previous = () if self.previous is None else (self.previous,)
        return self.answering.union(self.shadow, self.candidates, previous)

    @property
    def at_work(self) -> RolloutState:
        """The state with what runs in it only, and without what grows with all the versions that ever were."""
        lists: dict[str, Any] = dict.fromkeys(("candidates", "rejected", "retired", "rolled_back"), ())
        sets: dict[str, Any] = dict.fromkeys(("known", "served", "kept", "waiting", "pruned"), frozenset())
        return replace(self, **lists, **sets)


class Rollouts:
    """Folds the records of ``tailrace.rollouts`` in the topic's order.

    Of several records that follow the same revision the first wins; the others are as if they had not been written.

    Attributes:
        current: the state in force of each model.
        position: offset behind the last record that was taken, winner or not.
        commands: ids of the commands that were carried out.
        steps: how many records were winners.
        sequences: by model, the highest sequence of a package that was let in (see ``models/package/open.py``).
    """

    topic = ROLLOUTS

    def __init__(self) -> None:
        self.current: dict[str, RolloutState] = {}
        self.position = 0
        self.commands: set[str] = set()
        self.steps = 0
        self.sequences: dict[str, int] = {}
        # By model: the offsets of its winners, whose revisions count from 1, and the states that they led to.
        self._offsets: dict[str, list[int]] = {}
        self._states: dict[str, list[RolloutState]] = {}

    def state(self, model: str) -> RolloutState:
        return self.current.get(model) or RolloutState(model)

    def states(self, model: str) -> Sequence[RolloutState]:
        """What was at work under each revision of the model (see `RolloutState.at_work`)."""
        return self._states.get(model, ())

    def apply(self, record: RolloutRecord, offset: int) -> bool:
        """Takes one decoded record (schema ``rollout.avsc``) and its offset; says whether it came into force."""
        self.position = max(self.position, offset + 1)
        model = record["model"]
        before = self.state(model)
        if record["follows"] != before.revision or record["revision"] != before.revision + 1:
            return False
        self.current[model] = state_after(before, record)
        self._states.setdefault(model, []).append(self.current[model].at_work)
        self._offsets.setdefault(model, []).append(offset)
        self.steps += 1
        if record["command_id"] is not None:
            self.commands.add(record["command_id"])
        sequence = int(record["evidence"].get(SEQUENCE, 0))
        self.sequences[model] = max(sequence, self.sequences.get(model, 0))
        return True

    def revision_at(self, model: str, position: int) -> int:
        """The model's revision once everything before ``position`` had been folded; 0 where it had none."""
        return bisect_left(self._offsets.get(model, []), position)


def state_after(before: RolloutState, record: RolloutRecord) -> RolloutState:
    """The state that a record leads to from the one that it follows."""
    version, champion, shadow = record["version"], record["champion"], frozenset(record["shadow"])
    subject = frozenset() if version is None else frozenset({version})
    by_person = record["step"] == "shadow" and record["command_id"] is not None
    judged = record["evidence"].get(EVENT_TIME)
    now = None if judged is None else int(judged)
    canary = None if record["canary"] is None else CanaryState(**record["canary"])
    same_version = canary and before.canary and canary.version == before.canary.version
    experiment = _experiment(record)
    began_now = before.experiment is None
    answering = {champion, canary.version if canary else None, *(experiment.versions if experiment else ())}
    return RolloutState(
        model=record["model"],
        revision=record["revision"],
        champion=champion,
        previous=record["previous"],
        shadow=tuple(record["shadow"]),
        candidates=tuple(record["candidates"]),
        rejected=tuple(record["rejected"]),
        retired=tuple(record["retired"]),
        rolled_back=tuple(record["rolled_back"]),
        frozen=record["frozen"],
        off=record["off"],
        known=before.known | subject,
        served=before.served | {version for version in answering if version is not None},
        kept=(before.kept | subject if by_person else before.kept) & shadow,
        waiting=_waiting(before, record["step"], subject) & shadow,
        pruned=before.pruned | (subject if record["step"] == PRUNE else frozenset()),
        promoted_at=before.promoted_at if champion == before.champion else now,
        canary=canary,
        canary_began=None if canary is None else before.canary_began if same_version else now,
        canary_since=None if canary is None else before.canary_since if canary == before.canary else now,
        experiment=experiment,
        experiment_began=None if experiment is None else now if began_now else before.experiment_began,
    )


def _waiting(before: RolloutState, step: str, subject: frozenset[int]) -> frozenset[int]:
    """The versions that wait for a person after a step."""
    if step == "wait":
        return before.waiting | subject
    return before.waiting - subject if step == "canary" else before.waiting


def _experiment(record: RolloutRecord) -> ExperimentState | None:
    experiment = record["experiment"]
    if experiment is None:
        return None
    arms = tuple(Arm(**arm) for arm in experiment["arms"])
    return ExperimentState(experiment["assign"], experiment["share"], experiment["salt"], arms)
