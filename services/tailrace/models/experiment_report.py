"""What the arms of an experiment earned, recomputed from the log: for ``tailrace experiment``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tailrace.contracts import lanes
from tailrace.kit.codec import ControlCodec
from tailrace.kit.connection import Connection
from tailrace.kit.errors import TailraceError
from tailrace.kit.reading import read_all
from tailrace.kit.registry import RegistryClient
from tailrace.models.bandit import probability_of_best
from tailrace.models.rewards import Rewards
from tailrace.models.rollout_fold import Rollouts, RolloutState


def experiment_report(connection: Connection, model: str) -> dict[str, Any]:
    """The model's experiment, the one before where none is running.

    Raises:
        TailraceError: there was none, or the topics cannot be read.
    """
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))
    fold, last = Rollouts(), RolloutState(model)
    for message in read_all(connection, [lanes.ROLLOUTS]):
        if (record := codec.read(message)) is None:
            continue
        fold.apply(record, message.offset())
        last = last if fold.state(model).experiment is None else fold.state(model)
    if last.experiment is None:
        raise TailraceError(
            f"{model} has had no experiment: `tailrace experiment {model} start --arm VERSION`"
        )
    read = map(codec.read, read_all(connection, [lanes.PERFORMANCE_REPORTS]))
    reports = (report for report in read if report is not None)
    running = fold.state(model).experiment is not None
    return {"model": model, "running": running, **described(last, reports)}


def described(state: RolloutState, reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
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
        {"arm": arm.arm, "version": arm.version, "probability": arm.probability} for arm in now.arms
    ]
    best = [None for _ in arms] if worth is None else _best([(w.mean, w.deviation) for w in worth])
    for at, arm in enumerate(arms):
        known = None if worth is None else worth[at]
        low, high = (None, None) if known is None else known.interval
        arm |= {
            "requests": 0 if known is None else known.requests,
            "outcomes": 0 if known is None else known.labelled,
            "value": None if known is None else known.mean,
            "low": low,
            "high": high,
            "best": best[at],
        }
    return {
        "assign": now.assign,
        "share": now.share,
        "began": state.experiment_began,
        "windows": 0 if worth is None else worth[0].windows,
        "arms": arms,
    }


def _best(known: list[tuple[float, float]]) -> list[float | None]:
    return [*probability_of_best([mean for mean, _ in known], [deviation for _, deviation in known])]
