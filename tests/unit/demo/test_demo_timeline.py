"""The demo's plan: in order, within its time, repeatable, and able to tell its story whatever the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from tailrace.contracts.language.load import load_contract
from tailrace.demo.loans import DAY_MS, PURPOSES
from tailrace.demo.timeline import Timeline, timeline
from tailrace.models.train import frame_of, unfitted
from tailrace.templates.table import DEFAULT

CONTRACT = load_contract(Path(__file__).parents[3] / "contracts" / "models" / "credit.yaml")
END = 1_790_000_123_456
SECONDS, RATE = 100.0, 200
NUMBERS = ("income", "debt_ratio", "age")


@pytest.fixture(scope="module", params=range(3))
def plan(request: pytest.FixtureRequest) -> Timeline:
    return timeline(CONTRACT, request.param, END, SECONDS, RATE)


def test_everything_lies_within_the_time_that_it_is_given(plan: Timeline) -> None:
    applied = plan.loans["applied_at"].to_numpy()
    assert plan.start_ms <= applied.min() <= applied.max() < END == plan.end_ms
    assert END - applied.max() < DAY_MS
    assert plan.history["applied_at"].max() < plan.start_ms  # type: ignore[operator]
    assert (END - plan.start_ms) / 1000 / plan.speed == pytest.approx(SECONDS)
    assert len(applied) == pytest.approx(SECONDS * RATE, rel=0.05)
    assert plan.change_ms % CONTRACT.quality.window_ms == plan.change_ms % CONTRACT.drift.window_ms == 0
    for later in (plan.labels, plan.actions):
        assert (later.time > applied[later.row]).all()
        assert later.time.max() < END
    delay = (plan.labels.time - applied[plan.labels.row]) / DAY_MS
    assert 2 <= delay.min() <= delay.max() <= 20
    assert len(plan.done) == len(plan.actions.row)


def test_the_same_arguments_give_the_same_plan(plan: Timeline) -> None:
    one, other = (timeline(CONTRACT, 7, END, 10, 50) for _ in range(2))
    assert one.loans.equals(other.loans)
    assert one.done == other.done
    assert np.array_equal(one.labels.time, other.labels.time)


def _between(plan: Timeline, start: int, end: int) -> pl.DataFrame:
    time = pl.col("applied_at")
    return plan.loans.filter((time >= start) & (time < end))


def test_a_quiet_stretch_looks_like_the_history_and_the_change_does_not(plan: Timeline) -> None:
    """By scipy, window by window; the services' own tests are stricter on what may be called drift."""
    window = CONTRACT.drift.window_ms
    floor = CONTRACT.drift.min_effect

    def effects(rows: pl.DataFrame) -> list[float]:
        effects = [
            stats.ks_2samp(plan.history[name].drop_nulls(), rows[name].drop_nulls()).statistic / floor.ks
            for name in NUMBERS
        ]
        table = np.array([[(each["purpose"] == p).sum() for p in PURPOSES] for each in (plan.history, rows)])
        effects.append(np.sqrt(stats.chi2_contingency(table).statistic / table.sum()) / floor.cramers_v)
        return [float(each) for each in effects]

    for start in range(plan.start_ms, plan.change_ms, window):
        rows = _between(plan, start, start + window)
        assert len(rows) >= 4 * CONTRACT.drift.min_rows  # enough in each region
        assert max(effects(rows)) < 1
    assert max(effects(_between(plan, plan.change_ms, plan.change_ms + window))) > 1.2


def test_what_is_learned_from_after_the_change_recovers_the_accuracy(plan: Timeline) -> None:
    """By scikit-learn, on the labels that are known when the first window after the change is mature."""
    window, age = CONTRACT.quality.window_ms, CONTRACT.quality.judge_at_ms[1]
    known = np.full(len(plan.loans), END)
    known[plan.labels.row] = plan.labels.time
    loans = plan.loans.with_columns(known=known)
    judged = plan.change_ms + window + age
    first = loans.filter(pl.col("applied_at").is_between(plan.change_ms, plan.change_ms + window, "left"))
    learned = first.filter(pl.col("known") < judged)
    assert len(learned) / len(first) > CONTRACT.quality.mature
    assert len(learned) >= CONTRACT.training.min_labels

    def fitted(rows: pl.DataFrame) -> LogisticRegression:
        return unfitted(DEFAULT, CONTRACT).fit(frame_of(rows, CONTRACT), rows["defaulted"].to_numpy())

    def right(model: LogisticRegression, rows: pl.DataFrame) -> float:
        return float(accuracy_score(rows["defaulted"], model.predict(frame_of(rows, CONTRACT))))

    version_1, version_2 = fitted(plan.history), fitted(learned)
    later = _between(plan, plan.change_ms + 7 * window, END)
    assert right(version_1, _between(plan, plan.start_ms, plan.change_ms)) > 0.8
    assert right(version_1, later) < 0.68
    assert right(version_2, later) > 0.78
    failed = float(np.mean(later["defaulted"].to_numpy()))
    assert max(failed, 1 - failed) < 0.6  # so that accuracy means something
