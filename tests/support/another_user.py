"""Programs as another user of the machine, for tests of what that one cannot do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NOBODY = 65534


def run_as_another(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as the user 65534, who has no groups.

    Skips the test where this process may not change its id; on a build machine (CI=true) that fails it.
    """
    if os.geteuid() != 0:
        reason = "only root may change its user id: this attack was not tried"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return subprocess.run(
        [sys.executable, "-I", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
    )
