"""Whether a share is too large, or may be so by chance."""

from __future__ import annotations

from scipy.special import bdtrc

SIGNIFICANT = 0.01
"""Below this probability it is more than chance."""


def is_more(count: int, of: int, most: float) -> bool:
    """Whether so many of so many are more than the share ``most``, by the exact one-sided binomial test."""
    if not count or most >= 1:
        return False
    return most <= 0 or bool(bdtrc(count - 1, of, most) < SIGNIFICANT)
