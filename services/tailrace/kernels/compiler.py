"""Python that is compiled to machine code, for what has to look at every byte.

A kernel is compiled for the types that it declares, and at import, so that no request waits for a compiler. What was
compiled is kept beside its source or, where that cannot be written to, in the user's cache; where neither can be, each
process compiles for itself. Numba runs whatever it has kept, so the sums of its files are kept too: what does not have
them is compiled anew.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numba

from tailrace.access.private_files import write_private

log = logging.getLogger(__name__)

Function = Callable[..., Any]

SUMS = ".sums"


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
            kept: Any = numba.njit(cache=True)(function)
        except (RuntimeError, OSError):  # there is nowhere to keep it
            alone: Function = numba.njit(signature)(function)
            return alone
        files = _Kept(Path(kept.stats.cache_path), function)
        files.check()
        kept.compile(signature)
        if kept.stats.cache_misses:
            files.add_up()
        kept.disable_compile()
        result: Function = kept
        return result

    return compiled


class _Kept:
    """The files that Numba keeps of a function."""

    def __init__(self, folder: Path, function: Function) -> None:
        module = function.__module__.rpartition(".")[2]
        self._name = f"{module}.{function.__qualname__}-{function.__code__.co_firstlineno}"
        self._folder = folder
        self._sums = folder / f"{self._name}{SUMS}"

    def check(self) -> None:
        """Removes them where one is damaged."""
        files = self._files()
        try:
            sums = self._sums.read_bytes()
        except OSError:
            sums = b""
        if files and sums != _added_up(files):
            if sums:
                where = f"{self._name} in {self._folder}"
                log.warning(f"what was compiled of {where} is damaged; it is compiled again")
            for file in files:
                with suppress(OSError):
                    file.unlink()

    def add_up(self) -> None:
        with suppress(OSError):
            write_private(self._sums, _added_up(self._files()))

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._name}.*.nb[ci]"))


def _added_up(files: list[Path]) -> bytes:
    """The sums as ``sha256sum`` writes them; of what cannot be read, none."""
    lines = []
    for file in files:
        with suppress(OSError):
            lines.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")
    return "".join(lines).encode()
