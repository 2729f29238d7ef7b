"""Fixtures that several groups of tests share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from tailrace.kit.connection import Connection, connect
from tailrace.local.health import ask
from tailrace.local.kafka import LocalKafka
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process

pytest.register_assert_rewrite("tests.support")
hypothesis.settings.register_profile(
    "tailrace", deadline=None
)  # how long an example takes is the machine's affair
hypothesis.settings.load_profile("tailrace")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A real broker for the session: ``.bootstrap``, and ``.kill()`` and ``.start()`` for tests that hurt it.

    Shared: a test uses topics, groups and transactional ids of its own, and leaves the broker running.
    """
    data = tmp_path_factory.mktemp("kafka")
    broker = LocalKafka(data)
    broker.start()
    yield broker
    broker.stop()
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """The broker with a schema registry and ClickHouse beside it, as `tailrace up` starts them; no services.

    Shared, as the broker is. Topics and tables are for the tests to make.
    """
    home = tmp_path_factory.mktemp("stack")
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
        _await(servers["registry"], registry, "/readyz")
        _await(servers["clickhouse"], clickhouse, "/ping")
        from tests.support.signed import home_with_keys  # only once asserts of tests.support are rewritten

        home_with_keys(home)
        yield connect(env, home)
    finally:
        for server in servers.values():
            server.stop(10)
        shutil.rmtree(home, ignore_errors=True)


def _await(server: Process, address: str, path: str) -> None:
    from tests.support.waiting import until  # as above

    until(lambda: ask(address, path).ok or not server.running(), server.last_words)
    assert server.running(), server.last_words()
