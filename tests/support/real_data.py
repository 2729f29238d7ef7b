"""Real data, which lies beside the project and is never copied into it; where it is missing, tests make rows like it.

A stranger's clone has no such folder. ``TAILRACE_REAL_DATA`` names another one, and so one that is not there: with it
the tests that import this run as they do in such a clone (``make test-without-data``).
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = "TAILRACE_REAL_DATA"
BESIDE = Path(__file__).parents[2] / ".." / "shared" / "data"


def real_data(name: str) -> Path | None:
    """The file of this name; None where this machine has none."""
    file = Path(os.environ.get(FOLDER) or BESIDE) / name
    return file if file.exists() else None
