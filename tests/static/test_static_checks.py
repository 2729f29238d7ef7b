"""The checks that read the code without running it, as tests, so that one summary covers everything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

CHECKS = {
    "ruff": [BIN / "ruff", "check", "."],
    "ruff-format": [BIN / "ruff", "format", "--check", "."],
    "mypy": [BIN / "mypy"],
    "import-linter": [BIN / "lint-imports"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_check_is_clean(name: str) -> None:
    done = subprocess.run(CHECKS[name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{name} found something:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("requirements.txt", 50),
        ("benchmarks/peers/quixstreams.lock", 30),
        ("benchmarks/peers/faust.lock", 30),
    ],
)
def test_lock_file_names_no_index_and_hashes_everything(file: str, least: int) -> None:
    lock = (ROOT / file).read_text()
    assert "://" not in lock
    assert "--index-url" not in lock
    assert "--extra-index-url" not in lock
    pins = re.findall(r"^[a-z0-9_.\[\]-]+==[^\s]+(?: ; [^\\]+)? \\\n    --hash=sha256:", lock, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z0-9]", lock, re.MULTILINE)) > least
