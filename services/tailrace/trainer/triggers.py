"""Which reasons to train no run has answered yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tailrace.contracts.language.durations import format_duration
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.trainer.run import FAILED, REJECTED, OpenTrigger, Run
from tailrace.trainer.state import ModelState


def open_triggers(known: ModelState, contract: ModelContract) -> list[OpenTrigger]:
    """The triggers that no run has answered, in the order of their event times."""
    alerts = _alerts(known, contract)
    alert_ids = {alert.id for alert in alerts}
    again = [trigger for trigger in _again(known, contract) if trigger.id not in alert_ids]
    return sorted([*alerts, *again, *_regular(known, contract)], key=lambda t: (t.at, t.kind, t.id))


def _kinds(contract: ModelContract) -> set[str]:
    """Of alerts that the contract has answered."""
    wanted = contract.training.triggers
    by_kind = ((kind, alert) for t in wanted for kind, alert in (("drift", t.drift), ("quality", t.quality)))
    return {kind for kind, alert in by_kind if alert is not None}


def _alerts(known: ModelState, contract: ModelContract) -> list[OpenTrigger]:
    last, cooldown, kinds = known.last_run, contract.training.cooldown_ms, _kinds(contract)
    return [
        t
        for t in known.alerts.values()
        if t.kind in kinds
        and (last is None or t.at > last.cut)
        and not (t.id in known.resolved and t.version != known.champion)  # its version answers no more
        and not any(_answers(known, run, t, cooldown) for run in known.runs.values())
    ]


def _again(known: ModelState, contract: ModelContract) -> list[OpenTrigger]:
    """What a refused candidate was to answer is still so: once more, when it has cooled down."""
    last, kinds = known.last_run, _kinds(contract)
    if last is None or _alive(known, last):
        return []
    at = last.cut + contract.training.cooldown_ms
    return [
        replace(t, at=at, changed_at=last.changed_at)
        for t in last.triggers
        if t.kind in kinds and t.id not in known.resolved
    ]


def _regular(known: ModelState, contract: ModelContract) -> Iterator[OpenTrigger]:
    """What time and new labels alone bring."""
    if not known.windows:
        return
    last = known.last_run
    since = known.begin if last is None else last.window_end
    base = since if last is None else last.cut
    for t in contract.training.triggers:
        if t.every_ms is not None:
            at, reason = base + t.every_ms, f"{format_duration(t.every_ms)} have passed"
            yield OpenTrigger("every", f"every/{at}", at, since, reason)
        elif t.labels is not None:
            reason = f"{t.labels:,} new labels are in"
            yield OpenTrigger("labels", f"labels/{since}", base, since, reason, labels=t.labels)


def _alive(known: ModelState, run: Run) -> bool:
    """Whether the run may yet come to something: neither it nor its candidate was refused."""
    return run.state not in (REJECTED, FAILED) and (run.version is None or run.version not in known.rejected)


def _answers(known: ModelState, run: Run, trigger: OpenTrigger, cooldown: int) -> bool:
    """Whether the run's candidate is to replace the version that the alert is about."""
    is_replaced = trigger.version is not None and trigger.version == run.champion
    return is_replaced and trigger.at <= run.cut + cooldown and _alive(known, run)
