"""The table of services, the topic files, the services' readme files and the page on Kafka's users say the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tailrace.kafka_access.matrix import page
from tailrace.services import PROGRAMS, SERVICES, TABLE
from tailrace.streaming.backends.kafka.topics import topic_files

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("service", SERVICES)
def test_topic_files_and_table_agree(service: str) -> None:
    files = topic_files()
    assert set(TABLE[service].reads) == {name for name, topic in files.items() if service in topic.read_by}
    assert set(TABLE[service].writes) == {
        name for name, topic in files.items() if service in topic.written_by
    }


def test_every_program_is_a_module() -> None:
    for module in PROGRAMS.values():
        assert importlib.util.find_spec(module), module


def test_the_page_on_users_is_current() -> None:
    command = "python -m tailrace.kafka_access.matrix > docs/kafka-users.md"
    assert (ROOT / "docs" / "kafka-users.md").read_text() == page(), f"run {command}"
