"""The checks that read the code without running it, as tests, so that one summary covers everything."""

from __future__ import annotations

import json
import os
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


@pytest.mark.parametrize("file", ["node/package-lock.json", "golang/go.mod", "golang/go.sum", "jdbc.lock"])
def test_locks_of_other_languages_name_no_registry(file: str) -> None:
    """npm writes where each package came from, unless `omit-lockfile-registry-resolved` is set."""
    lock = (ROOT / "tests" / "support" / "clickhouse_drivers" / file).read_text()
    assert "://" not in lock
    assert '"resolved"' not in lock
    if file.endswith(".json"):
        packages = [name for name in json.loads(lock)["packages"] if name]
        assert packages
        assert all(json.loads(lock)["packages"][name]["integrity"] for name in packages)


def test_real_data_is_read_through_one_helper_alone() -> None:
    """So that `make test-without-data` runs all that reads it."""
    beside = re.compile(r'"\.\.",? ?/? ?"shared|\.\./shared')
    files = [file for folder in ("tests", "services", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    reading = {str(file.relative_to(ROOT)) for file in files if beside.search(file.read_text())}
    mine = str(Path(__file__).relative_to(ROOT))
    assert reading - {mine} == {"tests/support/real_data.py"}


def test_what_is_no_test_imports_nothing_from_tests() -> None:
    """Programs within texts included; what benchmarks share with tests is in services/tailrace/testing/."""
    files = [file for folder in ("benchmarks", "services", "tools") for file in (ROOT / folder).rglob("*.py")]
    importing = re.compile(r"\b(?:from|import) tests\b")
    assert [str(file.relative_to(ROOT)) for file in files if importing.search(file.read_text())] == []


def test_make_test_runs_every_folder_of_tests() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    dry = subprocess.run(
        ["make", "-n", "test"], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    named = set(re.findall(r"(?<!--ignore=)tests/(\w+)", dry.stdout))
    folders = {file.relative_to(ROOT).parts[1] for file in (ROOT / "tests").rglob("test_*.py")}
    assert folders <= named, f"give {', '.join(sorted(folders - named))} a line in the Makefile"
