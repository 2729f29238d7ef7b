"""Whether a share is too large, or may be so by chance."""

from __future__ import annotations

from scipy.special import bdtrc

SIGNIFICANT = 0.01
"""Below this probability it is more than chance."""


def is_more(count: int, of: int, limit: float) -> bool:
    """Whether so many of so many are more than the share ``limit``, by the exact one-sided binomial test."""
    if not count or limit >= 1:
        return False
    return limit <= 0 or bool(bdtrc(count - 1, of, limit) < SIGNIFICANT)
