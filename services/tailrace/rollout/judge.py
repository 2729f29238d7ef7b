"""What the rollout does by itself: on what reports say of closed, mature windows, and on alerts.

Plain functions of the state, the contract and what was folded of the reports, so that the same log leads to the same
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import AlertRecord, PerformanceReportRecord
from tailrace.models.rollout_state.bandit import assigned, probability_of_best
from tailrace.models.rollout_state.fold import Arm, CanaryState, ExperimentState, RolloutState
from tailrace.rollout.decide import (
    RolloutStep,
    back,
    canary,
    change_arms,
    first_champion,
    into_shadow,
    new_step,
    promote,
    reject,
    retire,
)
from tailrace.rollout.paired_reports import PairedReport, PairedReports, PairedWindow, of_segment
from tailrace.statistics.binomial import is_more
from tailrace.statistics.pooled_gain import PooledGain

QUARANTINED = "version-quarantined"
"""The kind of the alert that a version makes processes die."""
WINDOW_START = "window_start"
"""The fact in an alert's detail that says when the window began that it is about, in ms of event time."""

Distrust = Callable[[int], str | None]
"""Why nothing would take a version up, for people: whoever signed it is not trusted any more. None where they are."""


class Move(NamedTuple):
    """A step that nobody asked for, and what it rests on."""

    step: RolloutStep
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
    """The versions that will not be on trial again, and are not canaries now."""
    answering = set() if state.canary is None else {state.canary.version}
    return state.served.union(state.rejected) - answering


def move(
    state: RolloutState, contract: ModelContract, reports: PairedReports, distrust: Distrust
) -> Move | None:
    """What is to be done next; None where nothing is. To be asked again after each step."""
    if not state.frozen:
        housekeeping = _housekeeping(state, distrust)
        if housekeeping is not None:
            return Move(housekeeping, {})
    if state.experiment is not None:  # versions on trial wait until it is over
        return _experiment_move(state, state.experiment, contract, reports)
    if state.canary is not None:  # others wait until it is over
        return _canary_move(state, state.canary, contract, reports, distrust)
    if state.champion is None:
        return None
    plan = contract.rollout.canary
    approval = state.frozen or (contract.approvals.promote is not None and plan is None)
    for version in on_trial(state):
        if approval and version in state.waiting:
            continue
        verdict = judge(contract, reports, version, state.champion)
        if verdict is None:
            continue
        if verdict.passed:
            why = _waits_for(state, version, approval, distrust)
            if why is not None:
                if version in state.waiting:
                    continue
                step = _wait(state, version, verdict, why)
            elif plan is not None:
                step = canary(state, version, plan.steps[0], verdict.reason)
            else:
                step = promote(state, version, verdict.reason)
            return Move(step, verdict.evidence)
        if not state.frozen:
            return Move(reject(state, version, verdict.reason), verdict.evidence)
    return None


def _experiment_move(
    state: RolloutState, now: ExperimentState, contract: ModelContract, reports: PairedReports
) -> Move | None:
    """Shares that follow from what the arms have earned so far, once enough is known of each."""
    plan = contract.experiment
    if plan is None or state.frozen or now.assign == "fixed":
        return None
    versions = [arm.version for arm in now.arms]
    worth = reports.rewards.worth(versions, state.experiment_began)
    if worth is None or min(arm.labelled for arm in worth) < plan.outcomes:
        return None
    means = [arm.mean for arm in worth]
    best = probability_of_best(means, [arm.deviation for arm in worth])
    shares = assigned(now.assign, plan.epsilon, means, best)
    arms = tuple(
        Arm(arm.arm, arm.version, share, known.requests, known.mean, known.deviation, likely)
        for arm, share, known, likely in zip(now.arms, shares, worth, best, strict=True)
    )
    if arms == now.arms:
        return None
    leads = max(arms, key=lambda arm: arm.best or 0.0)
    reason = f"version {leads.version} is the best of {len(arms)} with probability {leads.best:.3g}"
    evidence = {"windows": str(worth[0].windows), "outcomes": " ".join(str(arm.labelled) for arm in worth)}
    return Move(change_arms(state, arms, reason), evidence)


def _canary_move(
    state: RolloutState, now: CanaryState, contract: ModelContract, reports: PairedReports, distrust: Distrust
) -> Move | None:
    """The canary's next step. Where the contract has no steps any more, a person decides."""
    plan = contract.rollout.canary
    verdict = None if plan is None else judge_canary(state, now, contract, reports)
    if plan is None or verdict is None:
        return None
    last = now.step >= len(plan.steps)
    if verdict.passed and (last or not state.frozen):
        approval = last and (state.frozen or contract.approvals.promote is not None)
        why = _waits_for(state, now.version, approval, distrust)
        if why is not None:
            waits = now.version in state.waiting
            return None if waits else Move(_wait(state, now.version, verdict, why), verdict.evidence)
    if state.frozen:
        return None
    if not verdict.passed:
        return Move(reject(state, now.version, verdict.reason), verdict.evidence)
    if last:
        return Move(promote(state, now.version, verdict.reason), verdict.evidence)
    return Move(canary(state, now.version, plan.steps[now.step], verdict.reason), verdict.evidence)


def judge_canary(
    state: RolloutState, now: CanaryState, contract: ModelContract, reports: PairedReports
) -> Verdict | None:
    """Whether a canary may take its next step, or has to go; None while too little is known.

    It may once enough of its own answers of this step have a label. It goes as soon as it is worse than the champion,
    on the requests that the champion still answers, with the whole interval: since it began, in the metric of
    ``gates.beat_champion``, or on a slice of ``gates.not_worse_on`` by more than tolerated.
    """
    plan, metric = contract.rollout.canary, contract.gates.beat_champion.metric
    assert plan is not None
    assert metric is not None
    assert state.champion is not None
    trial = reports.of_trial(now.version, state.champion)
    began = state.canary_began
    trial = {window: report for window, report in trial.items() if began is None or window.start > began}
    paired, gain = of_segment(trial, "", metric)
    own = reports.of_step(now.version, state.canary_since)
    labelled = sum(answered.labelled for answered in own)
    evidence = {"share": repr(now.share), "canary_outcomes": str(labelled)}
    if gain is not None and gain.n >= plan.outcomes:
        evidence |= {"against": str(state.champion), "metric": metric, **_facts(gain)}
        evidence["reports"] = " ".join(report.report_id for report in paired)
        worse = _worse(contract, trial, evidence)
        if gain.high < 0:
            worse.insert(0, f"{metric} by {_interval(gain)} on {gain.n:,} outcomes")
        if worse:
            return Verdict(False, f"worse than version {state.champion}: {'; '.join(worse)}", evidence)
    if labelled < plan.outcomes:
        return None
    seen = evidence.get("reports", "").split()
    evidence["reports"] = " ".join([*seen, *(answered.report_id for answered in own)])
    reason = (
        f"{labelled:,} labelled outcomes of its own at {now.share:.4g} of the requests, and not worse than version "
        f"{state.champion}"
    )
    return Verdict(True, reason, evidence)


def judge(contract: ModelContract, reports: PairedReports, version: int, champion: int) -> Verdict | None:
    """Whether a version in shadow may take the champion's place; None while too little is known.

    It may where its gain in the metric of ``gates.beat_champion`` is more than the margin with its whole interval,
    and where on no slice of ``gates.not_worse_on`` it is worse than tolerated with its whole interval.
    """
    gate, needed = contract.gates.beat_champion, contract.rollout.shadow.outcomes
    assert gate.metric is not None
    trial = reports.of_trial(version, champion)
    paired, gain = of_segment(trial, "", gate.metric)
    if gain is None or gain.n < needed:
        return None
    evidence = {
        "against": str(champion),
        "metric": gate.metric,
        "needed": repr(gate.by),
        **_facts(gain),
        "windows": str(len(paired)),
        "reports": " ".join(report.report_id for report in paired),
    }
    worse = _worse(contract, trial, evidence)
    better = (
        f"{gate.metric} better than version {champion}'s by {_interval(gain)} on {gain.n:,} labelled outcomes of "
        f"{len(paired)} window{'' if len(paired) == 1 else 's'}"
    )
    if gain.low <= gate.by:
        return Verdict(False, f"{better}; all of the interval has to be above {gate.by:g}", evidence)
    if worse:
        return Verdict(False, f"{better}, but worse on {'; '.join(worse)}", evidence)
    return Verdict(True, f"{better}; more than {gate.by:g} was needed", evidence)


def rolled_back(state: RolloutState, contract: ModelContract, alert: AlertRecord) -> Move | None:
    """The way back that a severe alert leads to; None where it leads to none.

    It has to be about the canary or an arm, or about the present champion and a window that began after its promotion.
    A version that the scorer has quarantined is not run any more, whatever the contract says of alerts.
    """
    if alert["kind"] == QUARANTINED:
        return _quarantined(state, alert)
    start, version = alert["detail"].get(WINDOW_START), alert["version"]
    if (
        state.frozen
        or contract.rollout.back_if.alert != "severe"
        or (alert["state"], alert["severity"]) != ("raised", "severe")
        or version is None
    ):
        return None
    reason = f"severe alert {alert['kind']} about version {version}: {alert['summary']}"[:1000]
    evidence = {"alert": alert["alert_id"], "kind": alert["kind"]}
    evidence |= {} if start is None else {WINDOW_START: start}
    if _is_canary(state, version) or _is_arm(state, version):
        began = state.canary_began if _is_canary(state, version) else state.experiment_began
        return None if _before(start, began) else Move(reject(state, version, reason), evidence)
    if version != state.champion or state.previous is None or start is None:
        return None
    return None if _before(start, state.promoted_at) else Move(back(state, reason), evidence)


def _is_canary(state: RolloutState, version: int | None) -> bool:
    return state.canary is not None and version == state.canary.version


def _is_arm(state: RolloutState, version: int | None) -> bool:
    return state.experiment is not None and version in state.experiment.versions


def _quarantined(state: RolloutState, alert: AlertRecord) -> Move | None:
    version = alert["version"]
    if state.frozen or alert["state"] != "raised" or version is None:
        return None
    evidence = {"alert": alert["alert_id"], "kind": alert["kind"]}
    reason = alert["summary"][:1000]
    if version == state.champion:
        return None if state.previous is None else Move(back(state, reason), evidence)
    is_in_use = version in state.shadow or _is_arm(state, version)
    return Move(reject(state, version, reason), evidence) if is_in_use else None


def relies_on_fallbacks(
    state: RolloutState, contract: ModelContract, report: PerformanceReportRecord
) -> Move | None:
    """The way back that a report leads to where more was answered by the fallback than ``rollout.back_if`` bears.

    Of the canary or an arm, or of the present champion in a window that began after its promotion; more by the exact
    one-sided binomial test at 1 %, so that one among few proves nothing.
    """
    most, asked, fallbacks = (
        contract.rollout.back_if.fallback_share,
        report["predictions"],
        report["fallbacks"],
    )
    if state.frozen or most is None or asked == 0 or report["segment"] or report["against"] is not None:
        return None
    if not is_more(fallbacks, asked, most):
        return None
    role, version = report["role"], report["version"]
    reason = (
        f"version {version} left {fallbacks:,} of {asked:,} requests of a window to the fallback; more than {most:.4g} "
        "of them is too many"
    )
    evidence = {"reports": report["report_id"], "fallbacks": str(fallbacks), "predictions": str(asked)}
    if (role == "canary" and _is_canary(state, version)) or (role == "arm" and _is_arm(state, version)):
        return Move(reject(state, version, reason), evidence)
    since = state.promoted_at
    if role not in ("champion", "arm") or version != state.champion or state.previous is None:
        return None
    if since is not None and report["window_start"] < since:
        return None
    return Move(back(state, reason), evidence)


def _before(start: str | None, since: int | None) -> bool:
    return start is not None and since is not None and int(start) < since


def _housekeeping(state: RolloutState, distrust: Distrust) -> RolloutStep | None:
    """What follows from the state, and from who is trusted, alone."""
    for version in state.candidates:
        if distrust(version) is not None:
            continue
        if state.champion is None:
            return first_champion(state, version)
        return into_shadow(state, version, "to be compared with the champion on the same requests")
    for version in state.shadow:
        is_kept = version in (state.previous, *state.kept) or _is_canary(state, version)
        if version in state.served and not is_kept:
            return retire(state, version, "answered once, and is not the version to go back to any more")
    return None


def _waits_for(state: RolloutState, version: int, approval: bool, distrust: Distrust) -> str | None:
    """Why a version that passed does not go on by itself; None where it does."""
    if approval:
        return "the rollout is frozen" if state.frozen else "the contract has a person agree"
    return distrust(version)


def _wait(state: RolloutState, version: int, verdict: Verdict, why: str) -> RolloutStep:
    return new_step(state, "wait", version, f"{verdict.reason}; {why}")


def _worse(
    contract: ModelContract, trial: Mapping[PairedWindow, PairedReport], evidence: dict[str, str]
) -> list[str]:
    """The slices on which a version is worse than tolerated, for people. Adds what was looked at to the evidence."""
    gate = contract.gates.not_worse_on
    if gate is None:
        return []
    worse = []
    for segment in sorted({window.segment for window in trial}):
        if not any(segment == name or segment.startswith(f"{name}=") for name in gate.slices):
            continue
        paired, gain = of_segment(trial, segment, gate.metric)
        if gain is None:
            continue
        evidence |= {f"{name} on {segment}": value for name, value in _facts(gain).items()}
        evidence["reports"] = " ".join([evidence["reports"], *(report.report_id for report in paired)])
        if gain.high < -gate.tolerance:
            worse.append(f"{segment} ({gate.metric} by {_interval(gain)} on {gain.n:,})")
    return worse


def _facts(gain: PooledGain) -> dict[str, str]:
    bounds = {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
    return {"outcomes": str(gain.n), **{name: repr(value) for name, value in bounds.items()}}


def _interval(gain: PooledGain) -> str:
    return f"{gain.mean:.4g} (95 % interval {gain.low:.4g} to {gain.high:.4g})"
