"""Clients of ClickHouse in other languages, each a program that reads a table, writes a row and prints what it saw.

``program SERVER COMPRESSION``, with the tokens of ops and services in ``TOKEN_OPS`` and ``TOKEN_SERVICES``. Packages
are pinned by lock files beside them and kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.tools import go_version, leave_out, need

from tailrace.local.java import cache_dir, jars
from tailrace.testing.java_program import compile_java, run_java

_HERE = Path(__file__).parent
_MINUTES = 600


class Driver:
    """A client that can be run: its command, or a Java class."""

    def __init__(self, command: list[str] | None = None, classpath: str = "") -> None:
        self._command = command
        self._classpath = classpath

    def run(self, server: str, compression: str, tokens: Mapping[str, str]) -> Any:
        """What the program printed."""
        env = os.environ | {f"TOKEN_{user.upper()}": token for user, token in tokens.items()}
        if self._command is None:
            return json.loads(run_java(self._classpath, "JdbcClient", server, compression, env=env))
        return json.loads(_output([*self._command, server, compression], env=env))


def jdbc(into: Path) -> Driver:
    """clickhouse-jdbc, on the Java of the local Kafka."""
    locked = jars(_HERE / "jdbc.lock")
    return Driver(classpath=compile_java(_HERE / "JdbcClient.java", into, locked))


def node(config: pytest.Config) -> Driver:
    """@clickhouse/client."""
    need(config, "@clickhouse/client", "node", "npm")
    folder = _kept("node", "package-lock.json")
    if not (folder / "done").exists():
        _copy(_HERE / "node", folder)
        _output(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
        (folder / "done").touch()
    shutil.copy(_HERE / "node" / "client.mjs", folder)
    return Driver(["node", str(folder / "client.mjs")])


def golang(config: pytest.Config) -> Driver:
    """clickhouse-go."""
    need(config, "clickhouse-go", "go")
    wanted = re.search(r"^go ([\d.]+)$", (_HERE / "golang" / "go.mod").read_text(), re.MULTILINE)
    assert wanted is not None
    if go_version() < tuple(map(int, wanted[1].split("."))):
        leave_out(config, "clickhouse-go", f"it needs Go {wanted[1]} or later")
    folder = _kept("golang", "go.sum")
    _copy(_HERE / "golang", folder)
    # The toolchain is the machine's, and go.sum says what is downloaded.
    env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    _output(["go", "build", "-o", "client", "."], folder, env)
    return Driver([str(folder / "client")])


def _kept(name: str, lock: str) -> Path:
    """A folder of the user's cache, for the packages of this lock file."""
    digest = hashlib.sha256((_HERE / name / lock).read_bytes()).hexdigest()[:16]
    folder = cache_dir() / "clickhouse-drivers" / f"{name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy(source: Path, into: Path) -> None:
    for file in source.iterdir():
        if file.is_file():
            shutil.copy(file, into)


def _output(command: list[str], folder: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=_MINUTES)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout
