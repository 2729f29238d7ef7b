"""Which numbers there are in a column, without sorting it."""

from __future__ import annotations

import numpy as np

from tailrace.avro.columns.bytes_column import Ints


def distinct_numbers(numbers: Ints) -> tuple[Ints, Ints]:
    """The different numbers in ascending order, and by row which of them it is; none may be below 0.

    As ``np.unique`` says it, in a tenth of the time where the largest is not far above how many there are.
    """
    largest = int(numbers.max(initial=-1))
    if largest > 4 * len(numbers):
        return np.unique(numbers, return_inverse=True)
    different = np.flatnonzero(np.bincount(numbers))
    places = np.empty(largest + 1, dtype=np.int64)
    places[different] = np.arange(len(different))
    return different, places[numbers]
