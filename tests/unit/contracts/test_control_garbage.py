"""Garbage and tombstones on each control topic, before whoever folds it: skipped, and reported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.control_garbage import garbage
from tests.support.scoring import NOW, Bench, Publisher
from tests.unit.rollout.test_rollout_logic import Desk

from tailrace.cli.control import HeldRuns
from tailrace.contracts.records import lanes
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.lane_clocks import LaneClocks
from tailrace.models.catalog import Catalog
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.streaming.records import PlainMessage
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import records
from tailrace.trainer.events import Events
from tailrace.verify.control_facts import ControlFacts
from tailrace.verify.report import VerifyReport

Messages = list[PlainMessage]


def _commands(registry: MemoryRegistry, messages: Messages) -> None:
    folds = Contracts(), Rollouts(), Catalog(lambda record: None), LaneClocks(), HeldRuns()
    taken = ControlState(records(registry), *folds).take(messages)
    assert all(each.record is None and not each.came for each in taken)


def _trainer(registry: MemoryRegistry, messages: Messages) -> None:
    events = Events(records(registry, "trainer"), lambda *_: None)
    assert {events.of(message) for message in messages} == {None}


def _verify(registry: MemoryRegistry, messages: Messages) -> None:
    report: Any = VerifyReport()
    facts = ControlFacts(records(registry), _no_manifest, {"m"}, report)
    for message in messages:
        facts.take(message)
    assert list(facts.decisions.problems()) == []
    assert facts.messages == []


def _no_manifest(record: object) -> Any:
    raise AssertionError("it is no manifest")


def _scorer(registry: MemoryRegistry, messages: Messages) -> None:
    publisher = Publisher(registry)
    bench = Bench(publisher.logic(), publisher)
    bench.logic.control(messages)
    assert bench.logic.topics() == frozenset()


def _rollout(registry: MemoryRegistry, messages: Messages) -> None:
    desk = Desk(Publisher(registry))
    desk.logic.control(messages)
    desk.logic.restore(messages)
    output = desk.bench.process(messages)
    assert not output.paused
    assert {record.topic for record in output.records} <= {lanes.ALERTS}


FOLDS = [_commands, _trainer, _verify, _scorer, _rollout]
READ = [topic for topic in lanes.CONTROL_TOPICS if topic not in (lanes.CHUNKS, lanes.WINDOW_STATE)]


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.__name__.strip("_"))
@pytest.mark.parametrize("topic", READ)
def test_garbage_counts_for_nothing(topic: str, fold: Callable[[MemoryRegistry, Messages], None]) -> None:
    registry = MemoryRegistry()
    messages = [
        PlainMessage(topic, 0, offset, record.value, record.key, record.headers, NOW)
        for offset, record in enumerate(garbage(topic, registry))
    ]
    # A manifest and a command carry their signature in a field, which is looked at by whoever uses them.
    if topic in (lanes.MANIFESTS, lanes.COMMANDS):
        messages = [m for m in messages if records(registry).judge(m).record is None]
    fold(registry, messages)


@pytest.mark.parametrize("topic", [lanes.CHUNKS, lanes.WINDOW_STATE, "credit.requests"])
def test_a_topic_of_other_records_holds_no_control_record(topic: str) -> None:
    message = PlainMessage(topic, 0, 0, b"x", None)
    assert records(MemoryRegistry()).judge(message).refusal == "no control record belongs on this topic"


def test_a_flood_is_reported_by_place_and_reason_and_then_by_its_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader = records(MemoryRegistry())
    with caplog.at_level(logging.WARNING):
        for offset in range(100):
            for _ in range(2):  # who folds a topic twice says it once
                reader.read(PlainMessage(lanes.ROLLOUTS, 0, offset, b"garbage", None))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith(
        "tailrace.rollouts/0/0 counts for nothing: wrong-magic: the first byte is 0x67"
    )
    assert [line.split(" counts")[0].rpartition("/")[2] for line in lines] == [
        "0",
        "1",
        "2",
        "3",
        "7",
        "15",
        "31",
        "63",
    ]
    assert "(number 64 of its topic)" in lines[-1]


def test_garbage_before_and_behind_honest_records_changes_nothing(tmp_path: Path) -> None:
    publisher, fold = Publisher(), Contracts()
    state = ControlState(records(publisher.registry), fold)
    honest = [publisher.contract(), publisher.contract(follows=1)]
    dirt = list(garbage(lanes.CONTRACTS, publisher.registry))
    mixed = [*dirt, honest[0], *dirt, honest[1], *dirt]
    state.take(PlainMessage(r.topic, 0, at, r.value, r.key, r.headers) for at, r in enumerate(mixed))
    assert fold.current["credit"].revision == 2
