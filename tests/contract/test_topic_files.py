"""The topic files agree with the code's names, with each other and with the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.contracts import contract
from tests.support.memory_store import MemoryStore
from tests.support.scoring import REFUSED, REQUEST, Bench, Publisher

from tailrace.clickhouse.tables import CONTROL_TABLES
from tailrace.contracts.language.sections import Keep
from tailrace.contracts.records.control_codec import CONTROL_RECORDS
from tailrace.contracts.records.lanes import (
    CHUNKS,
    CONTROL_TOPICS,
    LANE_SUFFIXES,
    MANIFESTS,
    WINDOW_STATE,
    Lane,
)
from tailrace.contracts.records.schemas import lane_schemas
from tailrace.drift.windows import DriftWindows
from tailrace.errors import UsageError
from tailrace.evaluator.windows import PerformanceWindows
from tailrace.joiner.processor import JoiningProcessor
from tailrace.rollout.processor import RolloutProcessor
from tailrace.sink.rows import RowReader
from tailrace.streaming.backends.kafka.producer import MAX_MESSAGE_BYTES
from tailrace.streaming.backends.kafka.topics import control_topics, lane_topics, topic_files, topics_read_by
from tailrace.streaming.processor import Processor
from tailrace.streaming.records import PlainMessage, Record
from tailrace.trainer import events as trainer_events
from tailrace.windows.processor import WindowedProcessor

MIB = 1024 * 1024


def test_there_is_a_file_for_every_topic_and_no_other() -> None:
    assert {t.name for t in control_topics()} == set(CONTROL_TOPICS)
    assert {t.name for t in lane_topics("credit")} == set(Lane("credit").topics)
    assert len(topic_files()) == len(CONTROL_TOPICS) + len(LANE_SUFFIXES)


def test_value_schemas_are_those_that_are_written() -> None:
    for name, schema in lane_schemas(contract()).items():
        assert topic_files()[name.replace("credit.", "LANE.")].value == schema["name"]
    for record, topic in CONTROL_RECORDS.items():
        assert topic_files()[topic].value == record


def test_derived_topics_take_four_times_a_request() -> None:
    sizes = {t.name: t.max_message_bytes for t in topic_files().values()}
    from_outside = {f"LANE.{suffix}" for suffix in ("requests", "labels", "actions")}
    assert {name for name, size in sizes.items() if size == MIB} == from_outside
    # An outcome carries a prediction and a label; what windows gather grows with their number.
    larger = {
        "LANE.outcomes": 8 * MIB,
        "tailrace.window-parts": 16 * MIB,
        "tailrace.window-state": 16 * MIB,
    }
    assert {name: size for name, size in sizes.items() if size not in (MIB, 4 * MIB)} == larger
    assert max(sizes.values()) < MAX_MESSAGE_BYTES


def test_histories_are_never_compacted() -> None:
    compacted = {t.name for t in topic_files().values() if t.cleanup == "compact"}
    states = {"tailrace.window-state", "tailrace.clocks"}
    assert compacted == {"tailrace.model-manifests", "tailrace.model-chunks", *states}
    histories = ("tailrace.contracts", "tailrace.rollouts", "tailrace.training-runs")
    assert all(topic_files()[name].retention_ms == -1 for name in histories)


def test_every_setting_has_the_broker_s_time() -> None:
    for topic in topic_files().values():
        assert topic.config()["message.timestamp.type"] == "LogAppendTime"


def test_a_lane_is_kept_as_its_contract_says() -> None:
    fields = {t.keep for t in lane_topics("credit")}
    assert {f"{field}_ms" for field in fields} <= set(Keep.model_fields)
    topics = {t.name: t for t in lane_topics("credit", {"requests": 5, "labels": 7})}
    assert topics["credit.requests"].retention_ms == 5
    assert topics["credit.actions"].retention_ms == topics["credit.labels"].retention_ms == 7
    assert topics["credit.predictions"].retention_ms > 300 * 86_400_000


def test_all_topics_of_a_lane_have_the_same_partitions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TAILRACE_HOME", str(tmp_path))
    monkeypatch.delenv("TAILRACE_LANE_PARTITIONS", raising=False)
    assert {t.partitions for t in lane_topics("credit")} == {32}
    monkeypatch.setenv("TAILRACE_LANE_PARTITIONS", "6")
    assert {t.partitions for t in lane_topics("credit")} == {6}
    assert {t.partitions for t in lane_topics("credit", partitions=3)} == {3}
    assert {t.partitions for t in control_topics()} == {1}
    for text in ("0", "many", "-1"):
        monkeypatch.setenv("TAILRACE_LANE_PARTITIONS", text)
        with pytest.raises(UsageError, match="TAILRACE_LANE_PARTITIONS"):
            lane_topics("credit")


def test_files_say_what_the_services_read_and_write() -> None:
    publisher = Publisher()
    scorer = publisher.logic()
    bench = Bench(scorer, publisher)
    bench.control(publisher.contract(), publisher.manifest(1), publisher.rollout(champion=1))
    bench.control(publisher.manifest(2, REFUSED), publisher.rollout(champion=2, previous=1))
    output = bench.requests(REQUEST, {**REQUEST, "age": 5})
    read = {*scorer.control_topics(), *scorer.topics(), "tailrace.model-chunks"}
    written = {record.topic for record in output.records} | {bad.topic for bad in output.dead_letters}
    for name, topic in topic_files().items():
        own = name.replace("LANE.", "credit.")
        assert (own in read) is ("scorer" in topic.read_by), own
        assert (own in written) is ("scorer" in topic.written_by), own

    rollout = RolloutProcessor(
        publisher.control.by("rollout"), lambda *_: None, publisher.open, lambda *_: None
    )
    read = {*rollout.control_topics(), *rollout.topics(), "tailrace.model-chunks"}
    assert read == topics_read_by("rollout")
    assert topics_read_by("sink") & set(CONTROL_TOPICS) == set(CONTROL_TABLES)


def as_message(record: Record) -> PlainMessage:
    return PlainMessage(record.topic, 0, 0, record.value, record.key, record.headers)


def read_by(processor: Processor, publisher: Publisher) -> set[str]:
    """The topics that it reads once the contract is known; LANE for the lane."""
    processor.control([as_message(publisher.contract(follows=0))])
    topics = {*processor.control_topics(), *processor.topics()}
    return {topic.replace("credit.", "LANE.") for topic in topics}


def test_files_say_what_the_services_of_the_loop_read() -> None:
    publisher = Publisher()
    by = publisher.control.by("joiner")
    codec = by.codec
    nothing: Any = None
    drift = WindowedProcessor(DriftWindows(by, nothing, nothing, list), codec, lambda topic: 1)
    evaluator = WindowedProcessor(PerformanceWindows(by, nothing, list), codec, lambda topic: 1)
    joiner = JoiningProcessor(by, nothing, lambda topic: 1, list)
    remembered = {WINDOW_STATE}  # read to its end by whoever takes partitions over
    assert read_by(joiner, publisher) == topics_read_by("joiner")
    assert read_by(drift, publisher) | remembered | {CHUNKS} == topics_read_by("drift")
    assert read_by(evaluator, publisher) | remembered == topics_read_by("evaluator")
    packages = {MANIFESTS, CHUNKS}
    assert {*trainer_events.TOPICS, "LANE.outcomes", *packages} == topics_read_by("trainer")


def test_the_sink_reads_all_but_packages_copies_and_what_services_note_for_themselves() -> None:
    left_out = {
        "tailrace.model-chunks", "LANE.rekeyed", "tailrace.window-parts", "tailrace.window-state",
    }  # fmt: skip
    assert topics_read_by("sink") == set(topic_files()) - left_out
    publisher = Publisher()
    sink = RowReader(publisher.control.by("sink"), MemoryStore({}))
    sink.control([as_message(publisher.contract())])
    assert {topic.replace("credit.", "LANE.") for topic in sink.topics()} == topics_read_by("sink")
