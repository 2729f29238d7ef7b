"""What a statistical test says."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class TestResult(NamedTuple):
    """A test's statistic, the probability of one as large if nothing had changed, and the size of the change
    between 0 and 1."""

    statistic: float
    p_value: float
    effect: float
