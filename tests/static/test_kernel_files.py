"""A kernel is found by its file's name: what is compiled once for all services is copied to each by that."""

from __future__ import annotations

from pathlib import Path

SERVICES = Path(__file__).resolve().parents[2] / "services"


def test_kernels_are_in_files_that_are_named_so() -> None:
    of_kernels = {file for file in SERVICES.rglob("*.py") if "\n@kernel(" in file.read_text()}
    assert of_kernels == set(SERVICES.rglob("*_kernels.py")) != set()
