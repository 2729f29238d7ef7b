"""Fisher's exact test of a share: of values that are missing, or that the reference has never seen.

Such values are often none at all in the reference, where the chi-squared test finds a change in everything.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tailrace.statistics.chi_squared import cramers_v
from tailrace.statistics.result import TestResult


@lru_cache(maxsize=1 << 16)
def share_test(count: int, n: int, reference_count: int, m: int) -> TestResult | None:
    """The two-sided test, equal to ``scipy.stats.fisher_exact``, of ``count`` of n against ``reference_count`` of m.

    Returns:
        statistic is the share in the window, effect Cramer's V (see chi_squared.py); None where n or m is 0.
    """
    if n == 0 or m == 0:
        return None
    if count == reference_count == 0:
        return TestResult(0.0, 1.0, 0.0)
    from scipy import stats  # 60 MB, which only who tests has a use for

    table = np.array([[count, n - count], [reference_count, m - reference_count]])
    p_value = float(stats.fisher_exact(table).pvalue)
    return TestResult(count / n, p_value, cramers_v(table[0], table[1]))
