"""The local ClickHouse as `tailrace run clickhouse` starts it, by itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import clickhouse_connect
from tests.support.waiting import until_answers

from tailrace.access.credentials import HTTP, SERVICES, Credentials
from tailrace.local.ports import HOST
from tailrace.local.process import Process

LOGINS: dict[int, str] = {}
"""By port, with what a service comes in."""


def token_of(port: int) -> str:
    return LOGINS[port].partition(":")[2]


def connected(port: int, **options: Any) -> Any:
    return clickhouse_connect.get_client(
        host=HOST, port=port, username=SERVICES, password=token_of(port), **options
    )


def start(home: Path, port: int) -> Process:
    env = os.environ | {"TAILRACE_HOME": str(home), "TAILRACE_PORT": str(port)}
    LOGINS[port] = f"{SERVICES}:{Credentials(home).make(HTTP, SERVICES)}"
    process = Process(
        [sys.executable, "-m", "tailrace.cli", "run", "clickhouse"], home / "clickhouse.log", env
    )
    process.launch()
    until_answers(process, f"http://{HOST}:{port}")
    return process
