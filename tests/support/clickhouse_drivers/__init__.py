"""Clients of ClickHouse in other languages, each a program that reads a table, writes a row and prints what it saw.

``program SERVER COMPRESSION``, with the tokens of ops and services in ``TOKEN_OPS`` and ``TOKEN_SERVICES``. Packages
are pinned by lock files beside them and kept in the user's cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.language_programs import go_program, node_program, output

from tailrace.local.java import jars
from tailrace.testing.java_program import compile_java, run_java

_HERE = Path(__file__).parent


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
        return json.loads(output([*self._command, server, compression], env=env))


def jdbc(into: Path) -> Driver:
    """clickhouse-jdbc, on the Java of the local Kafka."""
    locked = jars(_HERE / "jdbc.lock")
    return Driver(classpath=compile_java(_HERE / "JdbcClient.java", into, locked))


def node(config: pytest.Config) -> Driver:
    """@clickhouse/client."""
    return Driver(node_program(config, "@clickhouse/client", _HERE / "node"))


def golang(config: pytest.Config) -> Driver:
    """clickhouse-go."""
    return Driver(go_program(config, "clickhouse-go", _HERE / "golang"))
