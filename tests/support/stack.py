"""A registry and ClickHouse beside a broker, as `tailrace up` starts them; no services."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import until_answers

from tailrace.connection import Connection, connect
from tailrace.local.kafka import LocalKafka
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process
from tailrace.testing.signed_records import home_with_keys


@contextmanager
def running_stack(kafka: LocalKafka, home: Path) -> Iterator[Connection]:
    """Their connection, with the keys of a home in this folder, which is removed in the end."""
    ports = {"registry": free_port(), "clickhouse": free_port()}
    registry, clickhouse = (f"http://{HOST}:{port}" for port in ports.values())
    env = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "SCHEMA_REGISTRY_URL": registry,
        "CLICKHOUSE_URL": clickhouse,
        "TAILRACE_HOME": str(home),
    }
    servers = {
        name: Process(
            [sys.executable, "-m", "tailrace.cli", "run", name],
            home / f"{name}.log",
            env | {"TAILRACE_PORT": str(port)},
        )
        for name, port in ports.items()
    }
    for server in servers.values():
        server.launch()
    try:
        until_answers(servers["registry"], registry, "/readyz")
        until_answers(servers["clickhouse"], clickhouse)
        home_with_keys(home)
        yield connect(env, home)
    finally:
        for server in servers.values():
            server.stop(10)
        shutil.rmtree(home, ignore_errors=True)
