"""Programs that tests need and that a machine may lack: without them a test is left out, and the run's end says so.

Where CI is ``true`` nothing is left out: there .ci/run installs them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import NoReturn

import pytest

NOT_TRIED = pytest.StashKey[dict[str, str]]()
"""Of a run: what was not tried, and why."""


def need(config: pytest.Config, what: str, *programs: str) -> None:
    """Leaves the test out where a program is missing.

    Args:
        what: the test tries.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        leave_out(config, what, f"{' and '.join(missing)} missing")


def leave_out(config: pytest.Config, what: str, why: str) -> NoReturn:
    """Leaves the test out; where CI is ``true``, it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} cannot be tried: {why}; .ci/run is to install it")
    config.stash.setdefault(NOT_TRIED, {})[what] = why
    pytest.skip(f"{what}: {why}")


def sentence(config: pytest.Config) -> str:
    """What was not tried in this run; empty where all was."""
    left_out = config.stash.get(NOT_TRIED, {})
    return "; ".join(f"{what} ({why})" for what, why in left_out.items())


def go_version() -> tuple[int, ...]:
    """Of the Go that is installed."""
    done = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, timeout=60)
    return tuple(map(int, re.findall(r"\d+", done.stdout)))
