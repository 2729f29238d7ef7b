"""Fixtures that several groups of tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tailrace.local.kafka import LocalKafka


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
