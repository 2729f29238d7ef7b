"""Which of two values of a metric is better. The process of the trainer itself needs no other part of evaluating."""

from __future__ import annotations


def gain(metric: str, value: float, than: float) -> float:
    """How much better a value is than another one; positive is better whatever the metric."""
    if metric in ("auc", "accuracy", "balanced_accuracy", "f1"):
        return value - than
    return abs(than) - abs(value) if metric == "bias" else than - value
