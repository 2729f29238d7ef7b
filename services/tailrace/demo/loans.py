"""Simulated loans: applicants, what becomes of them, and a world that can change. Pure, seeded and fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

PURPOSES = ("car", "home", "education", "other")
REGIONS = ("north", "south", "east", "west")
SEXES = ("f", "m", "x")

START_MS = 1_735_689_600_000  # 2025-01-01
DAY_MS = 86_400_000
LABEL_DELAY_DAYS = (2.0, 20.0)
_MISSING_INCOME = 0.02


@dataclass(frozen=True)
class World:
    """Who applies (covariates), and who of them defaults (concept).

    Attributes:
        income: median, EUR a year.
        debt_ratio: mean of the debts of those who have any, as a share of income.
        purposes: share of each of ``PURPOSES``.
        base, per_income, per_debt, per_age, per_amount, per_purpose: log-odds of default; the factors are per
            doubling of income, unit of debt ratio, decade of age over 40, doubling of the amount, purpose.
    """

    income: float
    debt_ratio: float
    purposes: tuple[float, float, float, float]
    base: float
    per_income: float
    per_debt: float
    per_age: float
    per_amount: float
    per_purpose: tuple[float, float, float, float]


BEFORE = World(
    income=34_000,
    debt_ratio=0.45,
    purposes=(0.35, 0.3, 0.15, 0.2),
    base=-2.4,
    per_income=-3.0,
    per_debt=5.0,
    per_age=-0.5,
    per_amount=0.25,
    per_purpose=(0.0, -1.4, 0.5, 1.8),
)
"""A lender of last resort, whom four in ten fail to pay: debts, small incomes and the purpose decide."""

AFTER = World(
    income=27_000,
    debt_ratio=0.7,
    purposes=(0.25, 0.15, 0.2, 0.4),
    base=-2.2,
    per_income=-3.2,
    per_debt=1.6,
    per_age=1.1,
    per_amount=0.25,
    per_purpose=(1.2, 0.8, -0.8, 0.0),
)
"""A bad year, in which five in ten fail: poorer people with more debts apply, and now the old default, not the
young; debts say less, and other purposes are risky."""


def simulate(
    rows: int,
    seed: int,
    start_ms: int = START_MS,
    every_ms: float = 60_000.0,
    change_at_ms: int | None = None,
) -> pl.DataFrame:
    """Loan applications in order of time, with the fields of the example contract ``credit``.

    The same arguments give the same loans; a change of the world alters nothing before it.

    Args:
        rows: how many.
        seed: of everything random; also in the loan ids, so that different seeds give different loans.
        start_ms: when the first can come, milliseconds since 1970.
        every_ms: mean time between two applications; they come as a Poisson process.
        change_at_ms: from when on the world is ``AFTER`` instead of ``BEFORE``; never by default.

    Returns:
        loan_id (String), applied_at (Int64, milliseconds since 1970), income (Float64, 2 % null), debt_ratio
        (Float64), age (Int64), purpose (String), amount (Float64), region (String), sex (String),
        defaulted (Boolean).
    """
    draw = np.random.default_rng([seed, 0])
    applied_at = start_ms + np.cumsum(draw.exponential(every_ms, rows)).astype(np.int64)
    # Each row takes the same draws in either world.
    income_z, debt_z, amount_z = draw.standard_normal((3, rows))
    age = np.clip(np.rint(41 + 13 * draw.standard_normal(rows)), 18, 90).astype(np.int64)
    has_debt, purpose_u, default_u, missing_u = draw.random((4, rows))
    region = draw.choice(len(REGIONS), rows, p=[0.3, 0.25, 0.25, 0.2])
    sex = draw.choice(len(SEXES), rows, p=[0.49, 0.49, 0.02])

    changed = applied_at >= change_at_ms if change_at_ms is not None else np.zeros(rows, dtype=bool)

    def by_world(name: str) -> npt.NDArray[np.float64]:
        return np.where(changed, float(getattr(AFTER, name)), float(getattr(BEFORE, name)))

    income = np.round(by_world("income") * np.exp(0.5 * income_z + 0.006 * (age - 41)), 0)
    debt_ratio = np.where(
        has_debt < 0.15,
        0.0,
        np.round(np.minimum(by_world("debt_ratio") * np.exp(0.6 * debt_z - 0.18), 4.9), 3),
    )
    shares = np.where(changed[:, None], np.cumsum(AFTER.purposes), np.cumsum(BEFORE.purposes))
    purpose = np.minimum((purpose_u[:, None] >= shares).sum(axis=1), len(PURPOSES) - 1)
    typical = np.array([14_000, 90_000, 12_000, 7_000])[purpose]
    amount = np.round(typical * np.exp(0.5 * amount_z) / 100) * 100 + 500

    of_purpose = np.array([BEFORE.per_purpose, AFTER.per_purpose])[changed.astype(int), purpose]
    log_odds = (
        by_world("base")
        + by_world("per_income") * np.log2(income / 34_000)
        + by_world("per_debt") * debt_ratio
        + by_world("per_age") * (age - 40) / 10
        + by_world("per_amount") * np.log2(amount / typical)
        + of_purpose
    )
    defaulted = default_u < 1 / (1 + np.exp(-log_odds))

    return pl.DataFrame(
        {
            "loan_id": pl.Series(range(rows)).cast(pl.String).str.zfill(7).str.replace("^", f"L{seed}-"),
            "applied_at": applied_at,
            "income": pl.Series(np.where(missing_u < _MISSING_INCOME, np.nan, income)).fill_nan(None),
            "debt_ratio": debt_ratio,
            "age": age,
            "purpose": pl.Series(np.array(PURPOSES)[purpose].tolist(), dtype=pl.String),
            "amount": amount,
            "region": pl.Series(np.array(REGIONS)[region].tolist(), dtype=pl.String),
            "sex": pl.Series(np.array(SEXES)[sex].tolist(), dtype=pl.String),
            "defaulted": defaulted,
        }
    )


def known_at(loans: pl.DataFrame, seed: int) -> pl.Series:
    """When each outcome becomes known (Int64, milliseconds since 1970): 2 to 20 days later, mostly early."""
    draw = np.random.default_rng([seed, 1])
    least, most = LABEL_DELAY_DAYS
    delay = least + (most - least) * draw.beta(1.5, 3.0, loans.height)
    return (loans["applied_at"] + pl.Series((delay * DAY_MS).astype(np.int64))).alias("known_at")
