"""The table of record kinds: complete, printed, and the same as the topic files say."""

from __future__ import annotations

import re
from pathlib import Path

from tailrace.contracts.records.control_codec import CONTROL_RECORDS
from tailrace.contracts.records.lanes import CONTROL_TOPICS, LANE_SUFFIXES
from tailrace.contracts.state.alert_kinds import ALERT_KINDS, as_table
from tailrace.contracts.state.document import tables
from tailrace.contracts.state.kinds import BY_ACCESS_ALONE, COMMAND_LINE, KIND_OF_TOPIC, KINDS
from tailrace.signing.signers import SERVICES, SIGNERS
from tailrace.streaming.backends.kafka.topics import topic_files

DOCUMENT = Path(__file__).parents[2] / "docs" / "keys.md"
WRITERS = {"apply": "owner", "replay": "owner", "publish": "owner", "people": "owner"}


def test_every_topic_is_signed_or_said_to_be_protected_by_access_alone() -> None:
    known = {*CONTROL_TOPICS, *(f"LANE.{suffix}" for suffix in LANE_SUFFIXES)}
    assert known == set(KIND_OF_TOPIC) | set(BY_ACCESS_ALONE)
    assert not set(KIND_OF_TOPIC) & set(BY_ACCESS_ALONE)
    assert all(CONTROL_RECORDS[name] == kind.topic for name, kind in KINDS.items())


def test_the_document_prints_the_table() -> None:
    found = re.search(r"<!-- records: .* -->\n(.*?)<!-- /records -->", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    assert found[1].strip() == tables()


def test_signers_are_who_writes_and_checkers_who_reads() -> None:
    files = topic_files()
    for kind in KINDS.values():
        assert set(kind.signers) <= set(SIGNERS)
        written_by = {WRITERS.get(name, name) for name in files[kind.topic].written_by}
        assert written_by & set(SERVICES) <= set(kind.signers), kind.name
        readers = {*files[kind.topic].read_by, COMMAND_LINE}
        assert set(kind.checked_by) <= readers, kind.name


def test_whoever_raises_alerts_may_sign_them() -> None:
    assert {name for kind in ALERT_KINDS.values() for name in kind.services} <= set(KINDS["Alert"].signers)


def test_the_document_lists_every_kind_of_alert() -> None:
    """What is printed: ``python -c "from tailrace.contracts.state.alert_kinds import as_table; print(as_table())"``."""
    assert as_table() in (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
