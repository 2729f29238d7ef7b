"""The simulated loans: repeatable, valid by their contract, and a change of the world that bites."""

from pathlib import Path

import polars as pl
import pytest

from tailrace.contracts.expressions.compiler import compile_expression
from tailrace.contracts.language.expression_columns import request_columns
from tailrace.contracts.language.load import load_contract
from tailrace.demo.loans import DAY_MS, LABEL_DELAY_DAYS, START_MS, known_at, simulate
from tailrace.files.rows import read_rows

CONTRACT = load_contract(Path(__file__).parents[3] / "contracts" / "models" / "credit.yaml")
CHANGE = START_MS + 10_000 * 60_000


def test_same_seed_same_loans_and_other_seed_other_loans() -> None:
    assert simulate(500, seed=3).equals(simulate(500, seed=3))
    assert not set(simulate(500, seed=3)["loan_id"]) & set(simulate(500, seed=4)["loan_id"])


def test_loans_keep_their_contract() -> None:
    loans = simulate(20_000, seed=1, change_at_ms=CHANGE)
    fields = CONTRACT.features | CONTRACT.context
    identity = [CONTRACT.key.name, CONTRACT.event_time.name, CONTRACT.target.name]
    assert sorted(loans.columns) == sorted([*fields, *identity])
    for name, field in fields.items():
        column = loans[name].drop_nulls()
        if field.categories:
            assert set(column) == set(field.categories)
        else:
            assert field.min is None or column.min() >= field.min
            assert field.max is None or column.max() <= field.max
        assert column.len() == loans.height or field.missing == "impute"
    for rule in CONTRACT.rules:
        held = compile_expression(rule.require, request_columns(CONTRACT)).evaluate(loans)
        assert not (held == False).any()  # noqa: E712 - a series


def test_a_change_alters_nothing_before_it_and_turns_the_risk_around_after_it() -> None:
    quiet, changed = simulate(20_000, seed=2), simulate(20_000, seed=2, change_at_ms=CHANGE)
    before = pl.col("applied_at") < CHANGE
    assert quiet.filter(before).equals(changed.filter(before))

    def slope(loans: pl.DataFrame, name: str) -> float:
        """How much likelier the upper half by a feature is to default than the lower."""
        high = pl.col(name) > loans[name].median()
        rate = [loans.filter(half)["defaulted"].mean() for half in (high, ~high)]
        return float(rate[0] - rate[1])  # type: ignore[operator,arg-type]

    assert slope(changed.filter(before), "age") < -0.05
    assert slope(changed.filter(~before), "age") > 0.1
    assert slope(changed.filter(before), "debt_ratio") > 0.25
    assert slope(changed.filter(~before), "debt_ratio") < 0.2
    assert changed.filter(~before)["income"].median() < 0.9 * changed.filter(before)["income"].median()


def test_outcomes_become_known_within_the_horizon() -> None:
    loans = simulate(5_000, seed=1)
    delay = known_at(loans, seed=1) - loans["applied_at"]
    assert delay.min() >= LABEL_DELAY_DAYS[0] * DAY_MS
    assert delay.max() <= CONTRACT.labels.horizon_ms
    assert known_at(loans, seed=1).equals(known_at(loans, seed=1))


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows: int) -> None:
    assert simulate(rows, seed=1).height == rows


def test_loans_survive_a_csv_file(tmp_path: Path) -> None:
    loans = simulate(300, seed=1)
    loans.write_csv(tmp_path / "loans.csv")
    rows = read_rows(tmp_path / "loans.csv", None, CONTRACT)
    assert rows.select(loans.columns).equals(loans)
