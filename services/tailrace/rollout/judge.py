"""What the rollout does by itself: on what reports say of closed, mature windows, and on alerts.

Plain functions of the state, the contract and what was folded of the reports, so that the same log leads to the same
steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tailrace.contracts.model_contract import ModelContract
from tailrace.models.rollout_fold import RolloutState
from tailrace.rollout.decide import (
    Step,
    back,
    first_champion,
    into_shadow,
    next_state,
    promote,
    reject,
    retire,
)
from tailrace.rollout.paired_reports import Gain, Judged, PairedReports, Window, of_segment

WINDOW_START = "window_start"
"""The fact in an alert's detail that says when the window began that it is about, in ms of event time."""


class Move(NamedTuple):
    """A step that nobody asked for, and what it rests on."""

    step: Step
    evidence: dict[str, str]


class Verdict(NamedTuple):
    passed: bool
    reason: str
    evidence: dict[str, str]


def on_trial(state: RolloutState) -> list[int]:
    """The versions in shadow that may become champion by themselves: those that never answered.

    What answered once comes back only by a person, or as the previous one.
    """
    return [version for version in state.shadow if version not in state.served]


def tried(state: RolloutState) -> frozenset[int]:
    """The versions that will not be on trial again."""
    return state.served.union(state.rejected)


def move(state: RolloutState, contract: ModelContract, reports: PairedReports) -> Move | None:
    """What is to be done next; None where nothing is. To be asked again after each step."""
    if not state.frozen:
        housekeeping = _housekeeping(state)
        if housekeeping is not None:
            return Move(housekeeping, {})
    approval = state.frozen or contract.approvals.promote is not None
    for version in on_trial(state) if state.champion is not None else ():
        if approval and version in state.waiting:
            continue
        verdict = judge(contract, reports, version, state.champion)
        if verdict is None:
            continue
        if verdict.passed:
            step = _wait(state, version, verdict) if approval else promote(state, version, verdict.reason)
            return Move(step, verdict.evidence)
        if not state.frozen:
            return Move(reject(state, version, verdict.reason), verdict.evidence)
    return None


def judge(
    contract: ModelContract, reports: PairedReports, version: int, champion: int | None
) -> Verdict | None:
    """Whether a version in shadow may take the champion's place; None while too little is known.

    It may where its gain in the metric of ``gates.beat_champion`` is more than the margin with its whole interval,
    and where on no slice of ``gates.not_worse_on`` it is worse than tolerated with its whole interval.
    """
    assert champion is not None
    gate, needed = contract.gates.beat_champion, contract.rollout.shadow.outcomes
    assert gate.metric is not None
    trial = reports.of_trial(version, champion)
    found, gain = of_segment(trial, "", gate.metric)
    if gain is None or gain.n < needed:
        return None
    evidence = {
        "against": str(champion),
        "metric": gate.metric,
        "needed": repr(gate.by),
        **_facts(gain),
        "windows": str(len(found)),
        "reports": " ".join(judged.report_id for judged in found),
    }
    worse = _worse(contract, trial, evidence)
    said = (
        f"{gate.metric} better than version {champion}'s by {_interval(gain)} on {gain.n:,} labelled outcomes of "
        f"{len(found)} window{'' if len(found) == 1 else 's'}"
    )
    if gain.low <= gate.by:
        return Verdict(False, f"{said}; all of the interval has to be above {gate.by:g}", evidence)
    if worse:
        return Verdict(False, f"{said}, but worse on {'; '.join(worse)}", evidence)
    return Verdict(True, f"{said}; more than {gate.by:g} was needed", evidence)


def taken_back(state: RolloutState, contract: ModelContract, alert: Mapping[str, Any]) -> Move | None:
    """The way back that a severe alert leads to; None where it leads to none.

    It has to be about the present champion, and about a window that began after its promotion.
    """
    start = alert["detail"].get(WINDOW_START)
    if (
        state.frozen
        or contract.rollout.back_if.alert != "severe"
        or (alert["state"], alert["severity"]) != ("raised", "severe")
        or alert["version"] is None
        or alert["version"] != state.champion
        or state.previous is None
        or start is None
        or (state.promoted_at is not None and int(start) < state.promoted_at)
    ):
        return None
    reason = f"severe alert {alert['kind']} about version {state.champion}: {alert['summary']}"[:1000]
    evidence = {"alert": alert["alert_id"], "kind": alert["kind"], WINDOW_START: start}
    return Move(back(state, reason), evidence)


def _housekeeping(state: RolloutState) -> Step | None:
    """What follows from the state alone."""
    for version in state.candidates:
        if state.champion is None:
            return first_champion(state, version)
        return into_shadow(state, version, "to be compared with the champion on the same requests")
    for version in state.shadow:
        if version in state.served and version != state.previous and version not in state.kept:
            return retire(state, version, "answered once, and is not the version to go back to any more")
    return None


def _wait(state: RolloutState, version: int, verdict: Verdict) -> Step:
    why = "the rollout is frozen" if state.frozen else "the contract has a person agree"
    return Step(next_state(state), "wait", version, f"{verdict.reason}; {why}")


def _worse(contract: ModelContract, trial: Mapping[Window, Judged], evidence: dict[str, str]) -> list[str]:
    """The slices on which a version is worse than tolerated, for people. Adds what was looked at to the evidence."""
    gate = contract.gates.not_worse_on
    if gate is None:
        return []
    worse = []
    for segment in sorted({window.segment for window in trial}):
        if not any(segment == name or segment.startswith(f"{name}=") for name in gate.slices):
            continue
        found, gain = of_segment(trial, segment, gate.metric)
        if gain is None:
            continue
        evidence |= {f"{name} on {segment}": value for name, value in _facts(gain).items()}
        evidence["reports"] = " ".join([evidence["reports"], *(judged.report_id for judged in found)])
        if gain.high < -gate.tolerance:
            worse.append(f"{segment} ({gate.metric} by {_interval(gain)} on {gain.n:,})")
    return worse


def _facts(gain: Gain) -> dict[str, str]:
    return {
        "outcomes": str(gain.n),
        "gain": repr(gain.mean),
        "gain_low": repr(gain.low),
        "gain_high": repr(gain.high),
    }


def _interval(gain: Gain) -> str:
    return f"{gain.mean:.4g} (95 % interval {gain.low:.4g} to {gain.high:.4g})"
