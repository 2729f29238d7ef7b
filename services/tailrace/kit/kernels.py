"""Python that is compiled to machine code, for what has to look at every byte.

A kernel is compiled for the types that it declares, and at import, so that no request waits for a compiler. What was
compiled is kept beside its source or, where that cannot be written to, in the user's cache; where neither can be, each
process compiles for itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba

Function = Callable[..., Any]


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Lets imports of a module fail that nobody has imported yet."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


# Numba loads scipy's linear algebra, an eighth of what a scorer imports, to know whether there is a BLAS.
# No kernel multiplies matrices.
with _hidden("scipy.linalg"):
    import numba.np.arraymath


def kernel(signature: str) -> Callable[[Function], Function]:
    """Compiles a function of numbers and arrays for one signature, in numba's notation."""

    def compiled(function: Function) -> Function:
        try:
            found: Function = numba.njit(signature, cache=True)(function)
        except (RuntimeError, OSError):  # there is nowhere to keep it, or no room
            found = numba.njit(signature)(function)
        return found

    return compiled
