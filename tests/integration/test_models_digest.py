"""Packages across processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import models

BUILD = """
from tests.support import models
for kind in ("logistic", "forest", "boosting"):
    print(models.package(kind).manifest.content_digest)
"""


def test_the_same_data_and_code_give_the_same_package_in_any_process() -> None:
    """Names and ids in a skops archive are memory addresses, and sets have another order in every process."""
    env = os.environ | {"PYTHONHASHSEED": "4242"}
    elsewhere = subprocess.run(
        [sys.executable, "-c", BUILD],
        cwd=Path(__file__).parents[2],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    here = [models.package(kind).manifest.content_digest for kind in ("logistic", "forest", "boosting")]
    assert elsewhere.stdout.split() == here
