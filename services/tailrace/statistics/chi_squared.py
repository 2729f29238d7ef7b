"""Pearson's chi-squared test of two rows of counts by category, and Cramer's V as the size of the change."""

from __future__ import annotations

import numpy as np

from tailrace.statistics.result import Ints, TestResult


def chi_squared_test(counts: Ints, reference: Ints) -> TestResult | None:
    """The test of independence, equal to ``scipy.stats.chi2_contingency``: as by its default, with Yates'
    correction where there are two categories (one degree of freedom) and without it where there are more.

    Categories that neither row has are left out.

    Args:
        counts, reference: how many of the window and of the reference are in each category.

    Returns:
        None where either row is empty, or where there is only one category.
    """
    from scipy import special  # 20 MB, which only who tests has a use for

    table = np.stack([counts, reference]).astype(np.float64)
    table = table[:, table.sum(axis=0) > 0]
    rows, categories = table.sum(axis=1), table.shape[1]
    if categories < 2 or not rows.all():
        return None
    expected = np.outer(rows, table.sum(axis=0)) / rows.sum()
    distances = np.abs(table - expected)
    if categories == 2:
        distances -= np.minimum(0.5, distances)
    statistic = float((distances**2 / expected).sum())
    p_value = float(special.chdtrc(categories - 1, statistic))
    return TestResult(statistic, p_value, cramers_v(counts, reference))


def cramers_v(counts: Ints, reference: Ints) -> float:
    """Cramer's V between rows and categories, both rows weighing the same: 0 where the shares are equal, 1 where no
    category is in both.

    Weighed by their sizes instead, any change would look small against a large reference.
    """
    p, q = counts / counts.sum(), reference / reference.sum()
    both = (p + q) > 0
    return float(np.sqrt(((p - q)[both] ** 2 / (2 * (p + q)[both])).sum()))
