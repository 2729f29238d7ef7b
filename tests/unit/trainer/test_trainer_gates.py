"""Single gates on rows made by hand; on candidates that are trained they are in test_trainer_work.py."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from tests.support.training import contract_text

from tailrace.contracts.language.load import load_contract
from tailrace.models.package.rows import LabelledRows
from tailrace.models.predictions import Predictions
from tailrace.trainer.gates import LEAST_ROWS, GateEvidence, failed_gates

SLICE = "{not_worse_on: {slices: ['income > 0'], metric: log_loss, tolerance: 0.0}}"


def predictions(scores: Any) -> Predictions:
    return Predictions(np.column_stack([1 - scores, scores]), scores, None, ("false", "true"))


def judged(gates: str, candidate: Any, income: Any, champion: float = 0.6) -> list[str]:
    """Which gates fail; the truth is always true, and the champion always says the same."""
    rows = len(income)
    truth = np.array(["true"] * rows, dtype=object)
    frame = pl.DataFrame({"income": income, "purpose": ["car"] * rows, "region": ["north"] * rows})
    held_back = GateEvidence(
        load_contract(contract_text("credit", gates=gates)),
        cast(Any, None),  # no gate here asks the model itself
        LabelledRows({}, truth),
        frame,
        {"candidate": predictions(candidate), "champion": predictions(np.full(rows, champion))},
        {},
    )
    return [why.partition(":")[0] for why in failed_gates(held_back)]


@pytest.mark.parametrize(
    ("small", "failed"), [(LEAST_ROWS - 1, []), (LEAST_ROWS, ["not_worse_on income > 0"])]
)
def test_a_slice_of_a_few_rows_is_not_judged(small: int, failed: list[str]) -> None:
    income = np.where(np.arange(200) < small, 1.0, -1.0)
    assert judged(SLICE, np.where(income > 0, 0.55, 0.99), income) == failed


def test_equal_is_not_better_and_what_was_asked_for_exactly_is_enough() -> None:
    income = -np.ones(100)
    right = np.where(np.arange(100) < 75, 0.99, 0.01)  # an accuracy of 0.75
    for by, champion, failed in (
        ("0.0", 0.6, ["beat_champion"]),  # right everywhere
        ("0.75", 0.4, []),
        ("0.76", 0.4, ["beat_champion"]),
    ):
        gates = f"{{beat_champion: {{metric: accuracy, by: {by}}}}}"
        assert judged(gates, right, income, champion) == failed
    assert judged("{beat_champion: {metric: accuracy, by: 0.0}}", right, income, 0.4) == []
    assert judged("{}", np.full(100, 0.6), income) == ["beat_champion"]
