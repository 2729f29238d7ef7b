"""What a statistical test says, and the arrays that methods take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class TestResult(NamedTuple):
    """A test's statistic, the probability of one as large if nothing had changed, and the size of the change
    between 0 and 1.

    ``p_value`` is None where the method has none: the effect alone decides then.
    """

    statistic: float
    p_value: float | None
    effect: float
