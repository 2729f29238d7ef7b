"""Windows without a log: any interleaving and cutting into batches gives the reports of the whole log at once."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.toy_windows import (
    AGES,
    CODEC,
    COUNTED,
    DIGESTS,
    LANE,
    REPORTS,
    STREAMS,
    ToyWindows,
    contract_records,
    create_topics,
    expected_reports,
    reports,
)

from tailrace.contracts.records.lanes import CONTRACTS, WINDOW_PARTS, WINDOW_STATE
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.bounds import STEP, Budget
from tailrace.streaming.records import Record, TopicPartition
from tailrace.streaming.watermark_records import watermark_record
from tailrace.windows.closing import ModelWindows, PartPlace
from tailrace.windows.counting import parts
from tailrace.windows.kinds import Cell
from tailrace.windows.processor import KEEP_AFTER_MS, WindowedProcessor

PARTITIONS = 2
PARTS = TopicPartition(WINDOW_PARTS, 0)


class Instances:
    """Some instances that share the partitions, each driven by hand; what they write goes to the log at once."""

    def __init__(self, log: MemoryLog, count: int, keep_after: int = 3) -> None:
        self.log = log
        self.keep_after = keep_after
        self.committed: dict[TopicPartition, Committed] = {}
        self.logics = [self._start() for _ in range(count)]
        places = [TopicPartition(topic, p) for topic in COUNTED for p in range(PARTITIONS)]
        self.owner = {tp: number % count for number, tp in enumerate([*places, PARTS])}
        for number in range(count):
            self._assign(number)

    def _start(self) -> WindowedProcessor:
        topics = self.log.topics()
        logic = WindowedProcessor(
            ToyWindows(), CODEC, lambda topic: topics[topic], keep_after=self.keep_after
        )
        logic.control(self.log.messages(CONTRACTS))
        return logic

    def _assign(self, number: int) -> None:
        owned = {
            tp: self.committed.get(tp, Committed(0)) for tp, owner in self.owner.items() if owner == number
        }
        for tp, (start, end) in self.logics[number].assigned(owned).items():
            messages = self.log.messages(tp.topic, tp.partition)
            end = self.log.partition(tp).end if end is None else end
            self.logics[number].restore([m for m in messages if start <= m.offset() < end])

    def apply(self, contract: Record) -> None:
        """All of them hear of another contract."""
        self.log.append(*contract)
        for logic in self.logics:
            logic.control(self.log.messages(CONTRACTS)[-1:])

    def restart(self, number: int) -> None:
        self.logics[number] = self._start()
        self._assign(number)

    def take(self, number: int, limits: Mapping[TopicPartition, int], *, dies: bool = False) -> int:
        """One batch; returns how many messages there were for it. ``dies``: it is aborted."""
        batch = []
        for tp, limit in limits.items():
            if self.owner[tp] == number:
                start = self.committed.get(tp, Committed(0)).offset
                messages = [m for m in self.log.messages(tp.topic, tp.partition) if m.offset() >= start]
                batch += messages[:limit]
        if not batch:
            return 0
        logic = self.logics[number]
        output = logic.process(batch, MemoryClock(self.log))
        if dies:
            return len(batch)
        for record in output.records:
            self.log.append(*record)
        for message in batch:
            tp = TopicPartition(message.topic(), message.partition())
            known = self.committed.get(tp, Committed(0)).metadata
            facts = output.metadata_of.get(tp) or known
            self.committed[tp] = Committed(message.offset() + 1, facts)
        output.on_committed()
        return len(batch)

    def finish(self) -> None:
        everything = dict.fromkeys(self.owner, 1_000)
        while sum(self.take(number, everything) for number in range(len(self.logics))):
            pass


def filled(records: Sequence[Record]) -> MemoryLog:
    log = MemoryLog()
    create_topics(log, PARTITIONS)
    for record in (*contract_records(), *records):
        log.append(*record)
    return log


def passing_time(until: int) -> list[Record]:
    marks = [watermark_record(topic, p, until) for topic in STREAMS for p in range(PARTITIONS)]
    of_outcomes = [
        watermark_record(LANE.outcomes, p, until, stream=stream)
        for stream in STREAMS.values()
        for p in range(PARTITIONS)
    ]
    return [*marks, *of_outcomes]


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """What keeps the marks' promise: an outcome is known no earlier than the marks before it say."""
    marked: dict[tuple[int, str], int] = defaultdict(int)
    records = []
    for _ in range(draw(st.integers(0, 40))):
        if draw(st.integers(0, 9)) == 0:  # windows are judged on the way, and not only in the end
            time = draw(st.integers(0, 200))
            records += passing_time(time)
            for place in [(p, stream) for p in range(PARTITIONS) for stream in STREAMS.values()]:
                marked[place] = max(marked[place], time)
            continue
        topic, partition = draw(st.sampled_from(COUNTED)), draw(st.integers(0, PARTITIONS - 1))
        time = draw(st.integers(0, 150))
        is_mark = draw(st.integers(0, 4)) == 0
        row: dict[str, Any] = {"t": time, "v": draw(st.integers(0, 9)), "d": draw(st.sampled_from(DIGESTS))}
        if topic == LANE.outcomes:
            stream = draw(st.sampled_from(sorted(STREAMS.values())))
            known = marked[partition, stream] + draw(st.integers(0, 30))
            if is_mark:
                marked[partition, stream] = known
                records.append(watermark_record(topic, partition, known, stream=stream))
                continue
            row |= {"t": max(0, known - draw(st.integers(0, 60))), "stream": stream, "known": known}
        elif is_mark:
            records.append(watermark_record(topic, partition, time))
            continue
        records.append(Record(topic, json.dumps(row).encode(), None, (), partition))
    return [*records, *(passing_time(10_000) if draw(st.booleans()) else [])]


@settings(max_examples=60)
@given(histories(), st.sampled_from([1, 3]), st.data())
def test_reports_do_not_depend_on_batches_instances_or_crashes(
    records: list[Record], count: int, data: st.DataObject
) -> None:
    log = filled(records)
    instances = Instances(log, count)
    places = list(instances.owner)
    for _ in range(data.draw(st.integers(0, 12))):
        number = data.draw(st.integers(0, count - 1))
        what = data.draw(st.sampled_from(["take", "take", "take", "dies", "restart"]))
        if what == "restart":
            instances.restart(number)
        else:
            limits = data.draw(st.dictionaries(st.sampled_from(places), st.integers(1, 9)))
            instances.take(number, limits, dies=what == "dies")
    instances.finish()
    assert reports(log) == expected_reports(log)


def prediction(
    time: int, topic: str = LANE.predictions, partition: int = 0, digest: str = DIGESTS[0]
) -> Record:
    return Record(topic, json.dumps({"t": time, "v": 1, "d": digest}).encode(), None, (), partition)


def test_a_window_is_judged_when_the_last_partition_has_been_counted_far_enough() -> None:
    log = filled([prediction(3), *passing_time(14)])
    instances = Instances(log, 1)
    instances.finish()
    assert reports(log) == []
    for record in passing_time(15)[:-1]:  # all but the last partition of the outcomes of shadows
        log.append(*record)
    instances.finish()
    assert [report["id"] for report in reports(log)] == [["toy", "predictions", DIGESTS[0], 0, 0]]
    assert reports(log)[0]["subjects"] == {'{"v": 1}': {"rows": 1, "sum": 1}}


def test_what_is_late_is_counted_where_it_came() -> None:
    log = filled([prediction(3), prediction(60), prediction(4), *passing_time(1_000)])
    Instances(log, 1).finish()
    subjects = {tuple(report["id"][3:]): report["subjects"] for report in reports(log)}
    assert subjects[0, 1] == {'{"v": 1}': {"rows": 1, "sum": 1}}
    assert subjects[60, 0] == {'{"v": 1}': {"rows": 1, "late": 1, "sum": 2}}


def test_what_is_read_again_is_never_old() -> None:
    log = filled([])
    instances = Instances(log, 1, keep_after=1_000)
    log.append(*prediction(1))
    instances.finish()
    assert log.messages(WINDOW_STATE) == []
    log.pass_time(KEEP_AFTER_MS + 10_000)
    log.append(*prediction(2))
    instances.finish()
    assert (
        json.loads(instances.committed[PARTS].metadata)["from"] == log.messages(WINDOW_PARTS)[-1].offset() + 1
    )


def test_little_is_read_again_however_long_a_window_is_open() -> None:
    log = filled([])
    instances = Instances(log, 1, keep_after=10)
    for number in range(200):
        log.append(*prediction(number % 10))
        instances.finish()
    start = json.loads(instances.committed[PARTS].metadata)["from"]
    assert instances.committed[PARTS].offset - start <= 12
    assert len(log.messages(WINDOW_STATE)) < 100
    instances.restart(0)
    for record in passing_time(1_000):
        log.append(*record)
    instances.finish()
    assert reports(log)[0]["subjects"] == {'{"v": 1}': {"rows": 200, "sum": 200}}
    kept = {message.key(): message.value() for message in log.messages(WINDOW_STATE)}
    assert [value is None for key, value in kept.items() if (key or b"").count(b"/") > 1] == [True]
    assert len(log.messages(REPORTS)) == 2


def test_a_restart_reads_the_parts_of_a_model_that_the_last_batch_had_none_of() -> None:
    log = filled([])
    instances = Instances(log, 1, keep_after=1_000)
    for digest in DIGESTS[1::-1]:  # of two models, the first part in the log before the second's
        log.append(*prediction(3, digest=digest))
        instances.finish()
    assert log.messages(WINDOW_STATE) == []
    instances.restart(0)
    for record in passing_time(1_000):
        log.append(*record)
    instances.finish()
    assert len(reports(log)) == 4
    assert reports(log) == expected_reports(log)


def test_what_was_kept_of_a_window_goes_when_it_is_over_without_a_restart_between() -> None:
    log = filled([])
    instances = Instances(log, 1, keep_after=10)
    for number in range(40):
        log.append(*prediction(number % 10))
        instances.finish()
    windows = {
        message.key() for message in log.messages(WINDOW_STATE) if (message.key() or b"").count(b"/") > 1
    }
    assert len(windows) == 1
    for record in passing_time(1_000):
        log.append(*record)
    instances.finish()
    last = {message.key(): message.value() for message in log.messages(WINDOW_STATE)}
    assert [last[key] for key in windows] == [None]


def test_a_large_part_says_how_far_was_counted_only_at_its_end() -> None:
    cells = [Cell("predictions", DIGESTS[0], 10 * number, 0, "", b"c" * 400_000) for number in range(6)]
    claimed = {(TopicPartition(LANE.predictions, 0), "predictions"): 77}
    made = parts("toy", "toy", "toy", PARTITIONS, cells, claimed)
    assert [len(part["cells"]) for part in made] == [2, 2, 2]
    assert [[claim["time"] for claim in part["claims"]] for part in made] == [[], [], [77]]


def test_a_model_that_comes_later_is_told_the_clocks_of_partitions_that_are_silent_since() -> None:
    log = MemoryLog()
    create_topics(log, PARTITIONS)
    first, other, _ = contract_records()
    log.append(*first)
    instances = Instances(log, 1)
    ahead, behind = ([m for m in passing_time(t) if m.partition == p] for t, p in ((5_000, 1), (100, 0)))
    for record in (*ahead, *behind, prediction(101)):
        log.append(*record)
    instances.finish()
    instances.apply(other)
    log.append(*prediction(110, digest=DIGESTS[1]))
    for record in (m for m in passing_time(5_000) if m.partition == 0):
        log.append(*record)
    instances.finish()
    identities = [report["id"] for report in reports(log)]
    assert [each for each in identities if each[0] == "other"] == [
        ["other", "predictions", DIGESTS[1], 105, age] for age in (0, 1)
    ]


def test_of_windows_that_close_at_one_time_all_are_judged_in_a_step_or_none() -> None:
    """Where a restart goes on is a time of closing, so that it must not be in the middle of one."""
    kind = ToyWindows()
    kind.control(filled([]).messages(CONTRACTS))
    windows = ModelWindows()
    cells = [
        Cell("predictions", digest, start, 0, '{"v": 1}', b'{"rows": 1}')._asdict()
        for digest, start in ((DIGESTS[0], 40), (DIGESTS[2], 25))  # both end at 50
    ]
    windows.add(kind, {"lane": "toy", "partitions": 1, "cells": cells, "claims": []}, PartPlace(0, 0))
    claims = [
        {"topic": topic, "partition": 0, "stream": "predictions", "time": 1_000}
        for topic in (LANE.predictions, LANE.outcomes)
    ]
    windows.add(kind, {"lane": "toy", "partitions": 1, "cells": [], "claims": claims}, PartPlace(1, 0))
    made = windows.close(kind, "toy", Budget(STEP._replace(records=1)))
    assert [json.loads(record.value or b"")["id"][3:] for record in made] == [[25, 0], [40, 0]]
    assert set(windows.judged_to.values()) == {50 + AGES[1] - 1}
    # A restart takes for judged what was, and nothing else.
    again = windows.copy()
    again.forget_judged(kind)
    made = again.close(kind, "toy", Budget())
    assert [json.loads(record.value or b"")["id"][3:] for record in made] == [[25, 1], [40, 1]]
    assert again.judged_to == {}


def test_a_restart_judges_nothing_again_of_a_window_that_is_open_still() -> None:
    log = filled([prediction(3), *passing_time(20)])
    instances = Instances(log, 1, keep_after=1_000)
    instances.finish()
    assert [report["id"][3:] for report in reports(log)] == [[0, 0]], "at the first of two ages"
    instances.restart(0)
    for until in (30, 1_000):
        for record in passing_time(until):
            log.append(*record)
        instances.finish()
    assert [report["id"][3:] for report in reports(log)] == [[0, 0], [0, 1]]
