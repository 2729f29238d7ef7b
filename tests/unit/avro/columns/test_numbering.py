"""Numbers of columns against numpy's own, which sort."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tailrace.avro.columns.numbering import distinct_numbers
from tailrace.models.predictions import Predictions


@given(st.lists(st.integers(0, 5) | st.integers(0, 2**62), max_size=20))
def test_distinct_numbers_are_those_that_unique_finds(numbers: list[int]) -> None:
    different, which = distinct_numbers(np.array(numbers, dtype=np.int64))
    expected, at = np.unique(np.array(numbers, dtype=np.int64), return_inverse=True)
    assert different.tolist() == expected.tolist()
    assert which.tolist() == at.tolist()


@given(
    nps.arrays(
        np.float64,
        st.tuples(st.integers(0, 8), st.integers(1, 5)),
        elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    )
)
def test_the_most_probable_class_is_the_first_of_equals(probabilities: np.ndarray) -> None:
    predictions = Predictions(probabilities, None, None, tuple("abcde"[: probabilities.shape[1]]))
    assert predictions.most_probable is not None
    assert predictions.most_probable.tolist() == probabilities.argmax(axis=1).tolist()
