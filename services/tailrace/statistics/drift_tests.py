"""DRIFT_TESTS: how a window can be compared with what a version was trained on.

Contracts, the drift service and documents have a test from its entry.
"""

from __future__ import annotations

from collections.abc import Mapping

from tailrace.statistics.chi_squared import chi_squared_test
from tailrace.statistics.drift_test import DriftTest, EffectSize, FieldCounts, of_share, of_values
from tailrace.statistics.fisher import share_test
from tailrace.statistics.ks import ks_test

KS = EffectSize("ks", "Kolmogorov-Smirnov distance, for numbers.")
CRAMERS_V = EffectSize("cramers_v", "Cramer's V, for categories.")


def _missing(field: FieldCounts) -> tuple[int, int, int, int]:
    trained = field.reference_present + field.reference_missing
    return field.missing, field.rows, field.reference_missing, trained


def _unseen(field: FieldCounts) -> tuple[int, int, int, int]:
    return field.unseen, field.rows - field.missing, 0, field.reference_present


DRIFT_TESTS: tuple[DriftTest, ...] = (
    DriftTest(
        "ks",
        ("number",),
        KS,
        "two-sample Kolmogorov-Smirnov against the reference's sample of at most 1,000 points, two-sided; as "
        "`scipy.stats.ks_2samp`: exact up to 10,000 values, asymptotic beyond and where it is below 1e-12",
        of_values(ks_test),
    ),
    DriftTest(
        "chi2",
        ("category",),
        CRAMERS_V,
        "Pearson's, over the categories that training saw; as `scipy.stats.chi2_contingency` by default: Yates' "
        "correction where there are two categories, none where there are more",
        of_values(chi_squared_test),
    ),
    DriftTest(
        "missing",
        ("number", "category"),
        CRAMERS_V,
        "Fisher's exact test of the share of values that are missing, as `scipy.stats.fisher_exact`",
        of_share("missing", share_test, _missing),
        applies=lambda field: field.may_miss,
    ),
    DriftTest(
        "unseen",
        ("category",),
        CRAMERS_V,
        "the same of the share of values that training never saw",
        of_share("unseen", share_test, _unseen),
        applies=lambda field: field.may_be_unseen,
    ),
)

EFFECT_SIZES: Mapping[str, EffectSize] = {test.effect.name: test.effect for test in DRIFT_TESTS}
"""What contracts may set a floor for, by name."""
