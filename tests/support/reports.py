"""Performance reports and alerts as the evaluator writes them, for those who read them."""

from __future__ import annotations

from typing import Any

DAY = 86_400_000


def paired_metric(metric: str, gains: list[float]) -> dict[str, Any]:
    """Of a metric that is a mean over requests, from the gain on each."""
    n = len(gains)
    return {
        "metric": metric,
        "version_value": None,
        "against_value": None,
        "gain": sum(gains) / n if n else None,
        "n": n,
        "sum": sum(gains),
        "sum_squares": sum(gain * gain for gain in gains),
    }


def report(
    version: int = 2,
    against: int | None = 1,
    day: int = 0,
    gains: list[float] | None = None,
    metric: str = "log_loss",
    **changes: Any,
) -> dict[str, Any]:
    """A report on a window of a day, judged at age 0."""
    facts: dict[str, Any] = {
        "model": "credit",
        "role": "champion" if against is None else "shadow",
        "segment": "",
        "window_start": day * DAY,
        "window_end": (day + 1) * DAY,
        "age": 0,
        "contract_digest": "c" * 64,
        "mature": True,
    } | changes
    age = facts["age"]
    names = ("model", "segment", "contract_digest")
    gains = [] if gains is None else gains
    return {
        "report_id": "|".join([*(facts[name] for name in names), f"{version}-{against}-{day}-{age}"]),
        "version": version,
        "against": against,
        "judged_at": facts["window_end"] + age,
        "artifact_digest": "a" * 64,
        "predictions": len(gains),
        "fallbacks": 0,
        "labelled": len(gains),
        "unlabelled": 0,
        "late_labels": 0,
        "label_share": 1.0 if gains else None,
        "metrics": [],
        "paired": [] if against is None else [paired_metric(metric, gains)],
        "verdict": "ok",
        "reasons": [],
        **facts,
    }


def alert(version: int, day: int | None = 0, model: str = "credit", **changes: Any) -> dict[str, Any]:
    """A severe alert about a window of a day."""
    return {
        "alert_id": f"{model}-{version}-{day}",
        "state": "raised",
        "kind": "quality-drop",
        "severity": "severe",
        "model": model,
        "version": version,
        "service": "scorer"
        if changes.get("kind") in ("version-quarantined", "package-refused")
        else "evaluator",
        "summary": "accuracy fell",
        "detail": {} if day is None else {"window_start": str(day * DAY)},
        "source": None,
        "at": 0,
    } | changes


def earned(version: int, day: int, rewards: list[float], **changes: Any) -> dict[str, Any]:
    """A report on an arm: what its labelled requests were worth, of ``requests`` (by default these)."""
    requests = changes.pop("requests", len(rewards))
    return report(
        version,
        None,
        day,
        rewards,
        role="arm",
        predictions=requests,
        value_total=sum(rewards),
        value_squares=sum(reward * reward for reward in rewards),
        **changes,
    )
