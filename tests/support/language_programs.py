"""Programs in Node and Go, for tests of clients in those languages.

Packages are pinned by lock files beside a program's source, and kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.tools import go_version, leave_out, need

from tailrace.local.java import cache_dir

_MINUTES = 600


def node_program(config: pytest.Config, client: str, source: Path) -> list[str]:
    """The command of ``client.mjs`` in a folder with package.json and package-lock.json.

    Args:
        client: what it tries, for whoever reads what was left out.
    """
    need(config, client, "node", "npm")
    folder = _kept(source, "package-lock.json")
    if not (folder / "done").exists():
        _copy(source, folder)
        output(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
        (folder / "done").touch()
    shutil.copy(source / "client.mjs", folder)
    return ["node", str(folder / "client.mjs")]


def go_program(config: pytest.Config, client: str, source: Path) -> list[str]:
    """The command of what a folder with go.mod and go.sum is built to."""
    need(config, client, "go")
    wanted = re.search(r"^go ([\d.]+)$", (source / "go.mod").read_text(), re.MULTILINE)
    assert wanted is not None
    if go_version() < tuple(map(int, wanted[1].split("."))):
        leave_out(config, client, f"it needs Go {wanted[1]} or later")
    folder = _kept(source, "go.sum")
    _copy(source, folder)
    # The toolchain is the machine's, and go.sum says what is downloaded.
    env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    output(["go", "build", "-o", "client", "."], folder, env)
    return [str(folder / "client")]


def output(command: list[str], folder: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What the command printed; one that fails fails the test."""
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=_MINUTES)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def _kept(source: Path, lock: str) -> Path:
    """A folder of the user's cache, for the packages of this lock file."""
    digest = hashlib.sha256((source / lock).read_bytes()).hexdigest()[:16]
    folder = cache_dir() / source.parent.name.replace("_", "-") / f"{source.name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy(source: Path, into: Path) -> None:
    for file in source.iterdir():
        if file.is_file():
            shutil.copy(file, into)
