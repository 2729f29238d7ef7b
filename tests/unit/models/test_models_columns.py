"""Columns as models take them: how many rows, and which."""

from __future__ import annotations

import numpy as np
import pytest

from tailrace.avro.columns.categorical_column import CategoricalColumn
from tailrace.models.columns import BLOCK, padded, taken


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 100, 128, 129, 1_000])
def test_every_batch_is_a_multiple_of_64_rows_and_the_last_row_is_repeated(rows: int) -> None:
    columns = {
        "x": np.arange(rows, dtype=np.float64),
        "name": CategoricalColumn.of([f"t{n % 3}" for n in range(rows)]),
    }
    longer, size = padded(columns, rows)
    assert (size % BLOCK, size - rows < BLOCK) == (0, True)
    x, name = longer["x"], longer["name"]
    assert isinstance(x, np.ndarray)
    assert isinstance(name, CategoricalColumn)
    assert x.tolist() == [*range(rows), *[rows - 1] * (size - rows)]
    assert name.objects().tolist() == [f"t{min(n, rows - 1) % 3}" for n in range(size)]


def test_rows_are_taken_by_number() -> None:
    rows = taken(
        {"x": np.array([1.0, 2.0, 3.0]), "name": CategoricalColumn.of(["a", None, "b"])}, np.array([2, 1])
    )
    x, name = rows["x"], rows["name"]
    assert isinstance(x, np.ndarray)
    assert isinstance(name, CategoricalColumn)
    assert (x.tolist(), name.objects().tolist()) == ([3.0, 2.0], ["b", None])
