"""What follows from what: the trainer's state and one thing that happened give the new state and what is to be done.

A plain function, so that the same records lead to the same runs. It is canonical: in whatever order the topics are
read against each other, and however often a record comes again, the runs are those that their event times say. Two
things make it so. Nothing is decided before ``CaughtUp``, which says that every topic was read to an end that lay
behind everything read before; and a run's cut is looked for in the history of closed windows, not in the moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from tailrace.contracts.language.durations import format_duration
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.streaming.ids import record_id

Kind = Literal["drift", "quality", "every", "labels", "command"]

PLANNED, TRAINING, TRAINED = "planned", "training", "trained"
PUBLISHED, REJECTED, FAILED = "published", "rejected", "failed"
ENDS = (PUBLISHED, REJECTED, FAILED)
_ORDER = {PLANNED: 0, TRAINING: 1, TRAINED: 2, **dict.fromkeys(ENDS, 3)}


@dataclass(frozen=True)
class OpenTrigger:
    """A reason to train, open until a run answers it.

    Attributes:
        at: event time from which on there is a reason.
        changed_at: event time from which on the world counts as changed.
        version: what an alert is about.
        labels: how many mature labels it takes at least, where it is these that it waits for.
    """

    kind: Kind
    id: str
    at: int
    changed_at: int
    reason: str
    version: int | None = None
    labels: int = 0


@dataclass(frozen=True)
class Run:
    """A training run as its plan says, and what has become of it (see ``training_run.avsc``).

    Attributes:
        cut: labels known before this event time count.
        evaluations: how the candidate did, once it is trained, as on the topic.
    """

    run_id: str
    model: str
    cut: int
    triggers: tuple[OpenTrigger, ...]
    changed_at: int
    window_start: int
    window_end: int
    labels: int
    contract_digest: str
    champion: int | None
    offsets: tuple[tuple[int, int], ...] = ()
    state: str = PLANNED
    version: int | None = None
    evaluations: tuple[Mapping[str, Any], ...] = ()

    @property
    def seed(self) -> int:
        """Of everything random in the run."""
        return int(self.run_id[:7], 16)


# What happened ---


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
    """The rollout took a step about a version; ``champion`` is what answers after it."""

    model: str
    step: str
    version: int | None
    champion: int | None


@dataclass(frozen=True)
class RunStep:
    """A record of ``tailrace.training-runs``."""

    run: Run


@dataclass(frozen=True)
class CaughtUp:
    """Everything was read that was on any topic when the last of what is known had been read."""


Event: TypeAlias = (
    Applied | Alerted | WindowJudged | DriftJudged | Asked | CommandAnswered | Stepped | RunStep | CaughtUp
)


# What is to be done ---


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


Action: TypeAlias = WritePlan | StartRun | Refuse

_Window = tuple[int, int, str, str, int]  # start, version, role, contract digest, judged at


@dataclass(frozen=True)
class ModelState:
    """What is known about one model. ``windows`` are the judged windows; ``resolved`` are ids of alerts."""

    contract: AppliedContract | None = None
    alerts: Mapping[str, OpenTrigger] = field(default_factory=dict)
    resolved: frozenset[str] = frozenset()
    windows: Mapping[_Window, WindowJudged] = field(default_factory=dict)
    drift_until: int = -1
    asked: Mapping[str, Asked] = field(default_factory=dict)
    champion: int | None = None
    rejected: frozenset[int] = frozenset()
    runs: Mapping[str, Run] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    models: Mapping[str, ModelState] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()

    def of(self, model: str) -> ModelState:
        return self.models.get(model) or ModelState()

    @property
    def runs(self) -> Iterator[Run]:
        return itertools.chain.from_iterable(m.runs.values() for m in self.models.values())


def decide(state: State, event: Event) -> tuple[State, list[Action]]:
    """The new state, and what is to be done: nothing but after ``CaughtUp``."""
    if isinstance(event, CaughtUp):
        return state, [action for model in sorted(state.models) for action in _due(state, model)]
    if isinstance(event, CommandAnswered):
        return replace(state, answered=state.answered | {event.command_id}), []
    model = event.contract.model if isinstance(event, Applied) else _model_of(event)
    after = _fold(state.of(model), event)
    return replace(state, models={**state.models, model: after}), []


def expecting(state: State) -> bool:
    """Whether a run may come any time: windows of some model are judged, and its contract has triggers."""
    return any(
        known.windows and known.contract is not None and known.contract.contract.training.triggers
        for known in state.models.values()
    )


def run_id(model: str, cut: int) -> str:
    return record_id(model, cut)


def _model_of(event: Any) -> str:
    return event.run.model if isinstance(event, RunStep) else str(event.model)


def _fold(known: ModelState, event: Event) -> ModelState:
    match event:
        case Applied(contract):
            return replace(known, contract=contract)
        case Alerted(_, trigger, resolved):
            if resolved:
                return replace(known, resolved=known.resolved | {trigger.id})
            first = known.alerts.get(trigger.id)
            if first is not None and first.at <= trigger.at:
                return known  # it lasts, and is told again
            return replace(known, alerts={**known.alerts, trigger.id: trigger})
        case WindowJudged():
            at = (event.window_start, event.version, event.role, event.contract_digest, event.judged_at)
            return replace(known, windows={**known.windows, at: event})
        case DriftJudged(_, until):
            return replace(known, drift_until=max(known.drift_until, until))
        case Asked(_, command_id):
            return replace(known, asked={command_id: event, **known.asked})
        case Stepped(_, step, version, champion):
            refused = {"reject": version, "rollback": known.champion}.get(step)
            more = known.rejected if refused is None else known.rejected | {refused}
            return replace(known, champion=champion, rejected=more)
        case RunStep(run):
            return replace(known, runs={**known.runs, run.run_id: _advanced(known.runs.get(run.run_id), run)})
    return known


def _advanced(before: Run | None, step: Run) -> Run:
    """The first plan counts, and a run never goes back."""
    if before is None:
        return step
    if _ORDER[step.state] <= _ORDER[before.state]:
        return before
    return replace(
        before,
        state=step.state,
        version=step.version,
        evaluations=step.evaluations or before.evaluations,
    )


# What is due ---


def _due(state: State, model: str) -> Iterator[Action]:
    known = state.of(model)
    yield from (StartRun(run) for run in sorted(known.runs.values(), key=_by_cut) if run.state not in ENDS)
    if known.contract is None:
        return
    commanded = {t.id for run in known.runs.values() for t in run.triggers}
    for asked in known.asked.values():
        if asked.command_id in state.answered or asked.command_id in commanded:
            continue
        yield _answer(model, known, known.contract.contract, asked)
        return  # the next one when this answer is read
    plan = _next_run(model, known, known.contract.contract)
    if plan is not None:
        yield WritePlan(plan)


def _answer(model: str, known: ModelState, contract: ModelContract, asked: Asked) -> Action:
    if asked.refusal is not None:
        return Refuse(asked, asked.refusal)
    cut = max((w.judged_at for w in known.windows.values()), default=None)
    if cut is None:
        return Refuse(asked, f"no window of {model} has been judged yet, so there is nothing to train on")
    if run_id(model, cut) in known.runs:
        return Refuse(asked, f"run {run_id(model, cut)} was made from the same labels; wait for more")
    trigger = OpenTrigger("command", asked.command_id, cut, _begin(known), asked.reason)
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
    last = _last(known)
    if last is not None and last.state not in ENDS:
        return None
    floor = 0 if last is None else last.cut + contract.training.cooldown_ms
    runs = [
        run
        for trigger in _open(known, contract)
        if (run := _earliest(model, known, contract, trigger, max(trigger.at, floor))) is not None
    ]
    if not runs:
        return None
    first = min(runs, key=lambda run: (run.cut, run.triggers[0].at, run.triggers[0].kind, run.triggers[0].id))
    return first if _settled(known, contract, first.cut) else None


def _settled(known: ModelState, contract: ModelContract, cut: int) -> bool:
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
            also = [t for t in _open(known, contract) if t.at <= cut and t.id != trigger.id and not t.labels]
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


def _open(known: ModelState, contract: ModelContract) -> list[OpenTrigger]:
    """The triggers that no run has answered, in the order of their event times."""
    last, cooldown = _last(known), contract.training.cooldown_ms
    wanted = contract.training.triggers
    kinds = {kind for t in wanted for kind in ("drift", "quality") if getattr(t, kind) is not None}
    found = [
        t
        for t in known.alerts.values()
        if t.kind in kinds
        and (last is None or t.at > last.cut)
        and not (t.id in known.resolved and t.version != known.champion)  # its version answers no more
        and not any(_answers(known, run, t, cooldown) for run in known.runs.values())
    ]
    if last is not None and not _alive(known, last):
        # What the refused candidate was to answer is still so: once more, when it has cooled down.
        again = last.cut + cooldown
        found += [
            replace(t, at=again, changed_at=last.changed_at)
            for t in last.triggers
            if t.kind in kinds and t.id not in known.resolved and t.id not in {f.id for f in found}
        ]
    if known.windows:
        since = _begin(known) if last is None else last.window_end
        base = since if last is None else last.cut
        for t in wanted:
            if t.every_ms is not None:
                at, said = base + t.every_ms, f"{format_duration(t.every_ms)} have passed"
                found.append(OpenTrigger("every", f"every/{at}", at, since, said))
            elif t.labels is not None:
                said = f"{t.labels:,} new labels are in"
                found.append(OpenTrigger("labels", f"labels/{since}", base, since, said, labels=t.labels))
    return sorted(found, key=lambda t: (t.at, t.kind, t.id))


def _alive(known: ModelState, run: Run) -> bool:
    """Whether the run may yet come to something: neither it nor its candidate was refused."""
    return run.state not in (REJECTED, FAILED) and (run.version is None or run.version not in known.rejected)


def _answers(known: ModelState, run: Run, trigger: OpenTrigger, cooldown: int) -> bool:
    """Whether the run's candidate is to replace the version that the alert is about."""
    about = trigger.version is not None and trigger.version == run.champion
    return about and trigger.at <= run.cut + cooldown and _alive(known, run)


def _begin(known: ModelState) -> int:
    return min((w.window_start for w in known.windows.values()), default=0)


def _last(known: ModelState) -> Run | None:
    return max(known.runs.values(), key=_by_cut, default=None)


def _by_cut(run: Run) -> int:
    return run.cut
