"""Fixtures that several groups of tests share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import hypothesis
import pytest

from tailrace.connection import Connection
from tailrace.local.kafka import LocalKafka

pytest.register_assert_rewrite("tests.support", "tailrace.testing")
hypothesis.settings.register_profile(
    "tailrace", deadline=None
)  # how long an example takes is the machine's affair
hypothesis.settings.load_profile("tailrace")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by what it needs, before ``-m`` chooses."""
    from tests.support.needs import mark  # only once asserts of tests.support are rewritten

    for item in items:
        if isinstance(item, pytest.Function):
            mark(item)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of a run says what was left out of it for want of a program."""
    from tests.support.tools import sentence

    if left_out := sentence(config):
        print(f"not tried: {left_out}")


@pytest.fixture
def far_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock shows another time than UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        yield
    time.tzset()


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
    from tests.support.stack import running_stack  # only once asserts of tests.support are rewritten

    with running_stack(kafka, tmp_path_factory.mktemp("stack")) as connection:
        yield connection
