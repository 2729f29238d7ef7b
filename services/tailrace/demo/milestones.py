"""The milestones of the story: what has to happen, in this order, and in which words. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from tailrace.contracts.records.record_types import AlertRecord
from tailrace.demo import accuracy
from tailrace.demo.observed import Seen

FIRST = 1
"""The version that is trained before the world changes."""
LEAST_PAIRED = 500
"""Requests that both the first version and its successor scored, with their labels, before they are compared."""


class Milestone(NamedTuple):
    """Something that has to happen: its name, and what to say once it has (until then None)."""

    name: str
    text: Callable[[Seen], str | None]


def day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _first_sentence(alert: AlertRecord) -> str:
    """What is so, without what to do about it."""
    return str(alert["summary"]).split(". ")[0]


def drift_alerts(seen: Seen, change_ms: int) -> tuple[list[AlertRecord], list[AlertRecord]]:
    """Drift alerts that are true, and false ones: about a time before the change, or about a version that was
    trained after it, since the world has not changed again."""
    raised = seen.alerts_of("drift")
    true = [alert for alert in raised if alert["at"] > change_ms and alert["version"] == FIRST]
    return true, [alert for alert in raised if alert not in true]


def successor(seen: Seen) -> int | None:
    """The version that took over from the first one."""
    later = [s["champion"] for s in seen.steps if s["champion"] not in (None, FIRST)]
    return later[0] if later else None


def milestones(change_ms: int) -> list[Milestone]:
    def the_change(seen: Seen) -> str | None:
        if seen.event_ms < change_ms:
            return None
        false = drift_alerts(seen, change_ms)[1]
        return (
            f"{day(change_ms)}: the world changes: others apply, and other things decide who fails to pay. "
            f"Drift alerts until now: {len(false)}"
        )

    def drift(seen: Seen) -> str | None:
        true = drift_alerts(seen, change_ms)[0]
        return None if not true else f"{day(true[0]['at'])}: drift alert: {_first_sentence(true[0])}"

    def drop(seen: Seen) -> str | None:
        for alert in seen.alerts_of("quality-drop"):
            if alert["version"] == FIRST and alert["at"] > change_ms:
                return f"{day(alert['at'])}: quality alert: {_first_sentence(alert)}"
        return None

    def planned(seen: Seen) -> str | None:
        for run in seen.run_steps:
            if run["state"] == "planned":
                labels = f"{run['labels']:,} mature labels"
                return f"{day(run['at'])}: retraining ({run['trigger']}), on {labels} from after the change"
        return None

    def published(seen: Seen) -> str | None:
        for run in seen.run_steps:
            if run["state"] == "published":
                losses = ", ".join(
                    f"{e['who']} {e['value']:.3f}"
                    for e in run["evaluations"]
                    if e["metric"] == "log_loss" and e["value"] is not None
                )
                return (
                    f"version {run['version']} is published; log loss on held-back outcomes: {losses or '-'}"
                )
        return None

    def shadow(seen: Seen) -> str | None:
        for step in seen.steps:
            if step["step"] == "shadow" and step["version"] != FIRST:
                shadow = f"version {step['version']} scores in shadow"
                return f"{shadow}: the same requests, no effect on an answer"
        return None

    def promoted(seen: Seen) -> str | None:
        for step in seen.steps:
            if step["step"] == "promote":
                return f"version {step['version']} is promoted: {step['reason']}"
        return None

    def keeps_first(seen: Seen) -> str | None:
        if successor(seen) is None or FIRST not in seen.rollout.shadow:
            return None
        return f"version {FIRST} goes on in shadow, to say what would have been without the loop"

    def compared(seen: Seen) -> str | None:
        follower = successor(seen)
        if follower is None:
            return None
        without, with_loop = accuracy.on_the_same_requests(seen.judged(), FIRST, {follower})
        if without.value is None or with_loop.value is None or without.n < LEAST_PAIRED:
            return None
        return (
            f"on the same {without.n:,} requests: version {follower} was right in {with_loop.value:.1%}, "
            f"version {FIRST} in {without.value:.1%}"
        )

    return [
        Milestone("a change of the world", the_change),
        Milestone("a drift alert", drift),
        Milestone("a quality alert", drop),
        Milestone("a retraining", planned),
        Milestone("a new version", published),
        Milestone("a candidate in shadow", shadow),
        Milestone("a promotion", promoted),
        Milestone("version 1 in shadow to the end", keeps_first),
        Milestone("both versions judged on the same requests", compared),
    ]
