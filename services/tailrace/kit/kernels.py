"""Python that is compiled to machine code, for what has to look at every byte.

A kernel is compiled for the types that it declares, and at import, so that no request waits for a compiler. What was
compiled is kept beside its source or, where that cannot be written to, in the user's cache; where neither can be, each
process compiles for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

Function = Callable[..., Any]


def kernel(signature: str) -> Callable[[Function], Function]:
    """Compiles a function of numbers and arrays for one signature, in numba's notation."""

    def compiled(function: Function) -> Function:
        try:
            found: Function = numba.njit(signature, cache=True)(function)
        except RuntimeError:  # there is nowhere to keep it
            found = numba.njit(signature)(function)
        return found

    return compiled
