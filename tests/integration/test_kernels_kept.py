"""What Numba has kept of a kernel on disk is only run where it is whole."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = """
from tailrace.kernels.compiler import kernel

@kernel("int64(int64)")
def twice(number):
    return number + number
"""


def imported(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("kept_kernels", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.twice


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "empty": lambda file: file.write_bytes(b""),
    "removed": Path.unlink,
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("which", ["nbi", "nbc", "sums"])
def test_a_damaged_file_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, which: str, how: str
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    file = tmp_path / "kept_kernels.py"
    file.write_text(SOURCE)
    first = imported(file)
    assert (first(21), sum(first.stats.cache_misses.values())) == (42, 1)
    assert sum(imported(file).stats.cache_hits.values()) == 1
    (kept,) = (tmp_path / "__pycache__").glob(f"*.{which}")
    DAMAGES[how](kept)
    with caplog.at_level(logging.WARNING):
        again = imported(file)
    assert (again(21), sum(again.stats.cache_misses.values())) == (42, 1)
    # Without sums it may be from before there were any.
    assert ("is compiled again" in caplog.text) == (which != "sums" or how not in ("removed", "empty"))
    assert sum(imported(file).stats.cache_hits.values()) == 1
