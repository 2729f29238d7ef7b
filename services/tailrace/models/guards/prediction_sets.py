"""How sure an answer is, as its findings say it: scorers write these texts, and whoever judges answers reads them."""

from __future__ import annotations

from collections.abc import Iterable

UNCERTAIN, INTERVAL, DOMAIN, SCORE, PROBABILITIES = (
    "uncertain",
    "interval",
    "domain",
    "score",
    "probabilities",
)
"""Names of findings. Without ``uncertain`` the set is the predicted class alone."""


def set_text(classes: Iterable[str], coverage: float) -> str:
    """A set of classes that holds the truth with a probability of ``coverage``."""
    return f"{', '.join(classes) or 'no class'} at {coverage:.6g}"


def interval_text(low: float, high: float, coverage: float) -> str:
    """An interval that does."""
    return f"{low:.9g} to {high:.9g} at {coverage:.6g}"


def set_holds(text: str, name: str) -> bool:
    """Whether a class is in the set that a text says."""
    return f", {name}, " in f", {text.rpartition(' at ')[0]}, "


def interval_of(text: str) -> tuple[float, float]:
    """The ends of the interval that a text says."""
    low, _, high = text.rpartition(" at ")[0].partition(" to ")
    return float(low), float(high)
