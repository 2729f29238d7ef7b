"""Numbers by numbers, as numpy's sorting says it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.avro.columns.numbering import distinct_numbers

SMALLEST, LARGEST = -(2**63), 2**63 - 1
NEAR = st.integers(-3, 9)
FAR = st.integers(SMALLEST, LARGEST) | st.sampled_from([SMALLEST, -1, 0, LARGEST])


@given(st.lists(NEAR, max_size=40) | st.lists(FAR, max_size=9) | st.lists(NEAR | FAR, max_size=40))
def test_any_numbers_are_numbered_as_sorting_numbers_them(numbers: list[int]) -> None:
    column = np.array(numbers, dtype=np.int64)
    different, which = distinct_numbers(column)
    expected, inverse = np.unique(column, return_inverse=True)
    assert np.array_equal(different, expected)
    assert np.array_equal(which, inverse)
