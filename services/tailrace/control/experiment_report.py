"""What the arms of an experiment earned, recomputed from the log: for ``tailrace experiment``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import PerformanceReportRecord
from tailrace.contracts.state.copies import Copies
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import TailraceError
from tailrace.models.rollout_state.bandit import probability_of_best
from tailrace.models.rollout_state.fold import Rollouts, RolloutState
from tailrace.models.rollout_state.rewards import Rewards
from tailrace.streaming.backends.kafka.reading import read_all

_NOTHING_KNOWN = {"requests": 0, "outcomes": 0, "value": None, "low": None, "high": None, "best": None}


def experiment_report(connection: Connection, model: str) -> dict[str, Any]:
    """The model's experiment, the one before where none is running.

    Raises:
        TailraceError: there was none, or the topics cannot be read.
    """
    records = ControlRecords.of(connection)
    fold, last = Rollouts(), RolloutState(model)
    state = ControlState(records, fold)
    for _ in state.each(read_all(connection, state.topics)):
        last = last if fold.state(model).experiment is None else fold.state(model)
    if last.experiment is None:
        raise TailraceError(
            f"{model} has had no experiment: `tailrace experiment {model} start --arm VERSION`"
        )
    copies = Copies()
    reports = (
        report
        for message in read_all(connection, [lanes.PERFORMANCE_REPORTS])
        if not copies.is_copy(message) and (report := records.read(message)) is not None
    )
    running = fold.state(model).experiment is not None
    return {"model": model, "running": running, **described(last, reports)}


def described(state: RolloutState, reports: Iterable[PerformanceReportRecord]) -> dict[str, Any]:
    """An experiment by these reports: by arm its ``probability``, and of the closed windows that count ``requests``,
    ``outcomes``, the ``value`` of a request with its 95 % interval, and the probability that the arm is the ``best``;
    null while no window counts.
    """
    now = state.experiment
    assert now is not None
    rewards = Rewards()
    for offset, report in enumerate(reports):
        if report["model"] == state.model:
            rewards.apply(report, offset)
    worth = rewards.worth([arm.version for arm in now.arms], state.experiment_began)
    arms: list[dict[str, Any]] = [
        {"arm": arm.arm, "version": arm.version, "probability": arm.probability, **_NOTHING_KNOWN}
        for arm in now.arms
    ]
    if worth is not None:
        best = probability_of_best([known.mean for known in worth], [known.deviation for known in worth])
        for arm, known, probability in zip(arms, worth, best, strict=True):
            low, high = known.interval
            arm |= {"requests": known.requests, "outcomes": known.labelled, "value": known.mean}
            arm |= {"low": low, "high": high, "best": probability}
    return {
        "assign": now.assign,
        "share": now.share,
        "began": state.experiment_began,
        "windows": 0 if worth is None else worth[0].windows,
        "arms": arms,
    }
