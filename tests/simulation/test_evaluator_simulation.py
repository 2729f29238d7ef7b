"""The evaluator under seeded schedules: its reports are those that scikit-learn computes over the whole log, and its
reports and alerts are, byte for byte, those of an undisturbed run.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.support.evaluating_batch import STREAMS, expected_reports, key_of
from tests.support.simulation import OUTSIDE, Scenario, drained, simulate

from tailrace.contracts.records.lanes import (
    ALERTS,
    CONTRACTS,
    MANIFESTS,
    PERFORMANCE_REPORTS,
    WINDOW_PARTS,
    WINDOW_STATE,
)
from tailrace.models.manifest import Holdout
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Record
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.watermark_records import watermark_record
from tailrace.testing.evaluated_lane import ARTIFACT, BINARY, EvaluatedLane
from tailrace.windows.processor import WindowedProcessor

TEXT = BINARY.replace(
    "labels: {horizon: 100s}", "labels: {horizon: 100s, known_only_for: [approve], never: {assume: false}}"
).replace("mature: 80%", "mature: 30%")
HOLDOUTS = {v: Holdout(rows=1000, metrics={"accuracy": 0.95, "auc": 0.9, "log_loss": 0.2}) for v in (1, 2)}
LAB = EvaluatedLane(TEXT, holdouts=HOLDOUTS)
COUNTED = (LAB.lane.predictions, LAB.lane.shadow_predictions, LAB.lane.outcomes)
INSTEAD = [
    {"served_by": "rule", "served_cause": "model"},
    {"served_by": "previous", "served_cause": "score"},
    {"served_by": "person", "served_cause": "off"},
]
HORIZON = LAB.contract.labels.horizon_ms


class Made:
    """A prediction, and its outcomes so far."""

    def __init__(self, record: dict[str, Any], known: int, rng: random.Random) -> None:
        self.record = record
        self.known = known
        self.last: dict[str, Any] | None = None
        self.shadow = record["role"] == "shadow"
        self.duplicate = "p0" if rng.random() < 0.1 else None
        self.champion = None
        if self.shadow:
            score = rng.choice([0.2, 0.4, 0.6, rng.random()])
            self.champion = LAB.champion(version=rng.choice([1, 1, 2]), **said(score))


def said(score: float) -> dict[str, Any]:
    return {
        "score": score,
        "predicted_class": "true" if score > 0.5 else "false",
        "action": "approve" if score < 0.5 else "refuse",
    }


class EvaluatorScenario(Scenario):
    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.log = log
        self.create(log)
        self.producer = log.backend(OUTSIDE).producer("outside")
        self.producer.init()
        self.write(LAB.control_records())
        self.clocks: dict[tuple[str, int], int] = {}
        self.marks = {(p, stream): 0 for p in range(self.partitions) for stream in STREAMS}
        self.made: dict[int, list[Made]] = {p: [] for p in range(self.partitions)}
        self.ids = 0

    def create(self, log: MemoryLog) -> None:
        for topic in (*COUNTED, LAB.lane.dead_letters):
            log.create_topic(topic, self.partitions)
        for topic in (CONTRACTS, MANIFESTS, WINDOW_PARTS, WINDOW_STATE, PERFORMANCE_REPORTS, ALERTS):
            log.create_topic(topic)

    def write(self, records: list[Record]) -> None:
        self.producer.begin()
        self.producer.produce(records)
        self.producer.commit()

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        self.write([self._record(rng) for _ in range(rng.randint(1, 25))])

    def _record(self, rng: random.Random) -> Record:
        partition, what = rng.randrange(self.partitions), rng.random()
        if what < 0.02:
            return Record(rng.choice(COUNTED), b"nonsense", None, (), partition)
        if what < 0.5 or not self.made[partition]:
            return self._prediction(partition, rng)
        return self._outcome(partition, rng)

    def _prediction(self, partition: int, rng: random.Random) -> Record:
        shadow = rng.random() < 0.5
        topic = LAB.lane.shadow_predictions if shadow else LAB.lane.predictions
        clock = self.clocks.get((topic, partition), -(2**62))
        now = max(clock, 0) + rng.choice([0, 100, 1_000, 4_000])
        self.clocks[topic, partition] = now
        if rng.random() < 0.1:
            return watermark_record(topic, partition, now)
        self.ids += 1
        time = max(0, now - rng.choice([0, 0, 0, 5_000, 30_000]))
        record = LAB.prediction(
            prediction_id=f"p{self.ids}",
            event_time=time,
            version=rng.choice([1, 2]) if shadow else 1 + (time > 60_000),
            role="shadow" if shadow else rng.choice(["champion", "champion", "canary", "arm"]),
            **rng.choice([{}, {}, *INSTEAD]),
            **said(rng.choice([0.2, 0.4, 0.6, 0.9, rng.random()])),
            amount=rng.choice([None, 10.0, 60.0, 1e6 * rng.random()]),
            region=rng.choice(["north", "south", "east", None]),
            employed=rng.choice([True, False, None]),
        )
        self.made[partition].append(Made(record, max(time, clock), rng))
        self.clocks[topic, partition] = max(now, time)
        return Record(topic, LAB.encode(topic, record), None, (), partition)

    def _outcome(self, partition: int, rng: random.Random) -> Record:
        stream = rng.choice(STREAMS)
        if rng.random() < 0.3:
            self.marks[partition, stream] += rng.choice([0, 500, 5_000, 20_000])
            return watermark_record(
                LAB.lane.outcomes, partition, self.marks[partition, stream], stream=stream
            )
        made = rng.choice(self.made[partition])
        stream = STREAMS[made.shadow]
        made.known = max(made.known, self.marks[partition, stream]) + rng.choice([0, 0, 1_000, 15_000])
        last, before = made.last, None
        if last is not None:
            before = {name: last.get(name) for name in ("state", "label", "action_taken")}
        state = rng.choice(["labelled", "labelled", "labelled", "unlabelled", "assumed"])
        made.last = LAB.outcome(
            made.record,
            revision=1 if last is None else last["revision"] + 1,
            state=state,
            label=None if state == "unlabelled" else state == "labelled" and rng.random() < 0.5,
            action_taken=rng.choice([None, None, "approve", "refuse"]),
            known_at=made.known,
            late=rng.random() < 0.2,
            before=before,
            duplicate_of=made.duplicate,
            champion=made.champion,
        )
        return Record(LAB.lane.outcomes, LAB.encode(LAB.lane.outcomes, made.last), None, (), partition)

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        """Time passes far enough for some windows, in half of the schedules for all."""
        until = rng.choice([40_000, 120_000, 10_000_000, 10_000_000])
        for partition in range(self.partitions):
            self.write([watermark_record(topic, partition, until) for topic in COUNTED[:2]])
            self.write(
                [watermark_record(LAB.lane.outcomes, partition, until, stream=stream) for stream in STREAMS]
            )

    def logic(self) -> WindowedProcessor:
        topics = self.log.topics()
        return WindowedProcessor(
            LAB.windows(know=False),
            LAB.control.codec,
            lambda topic: topics[topic],
            keep_after=5,
            bounds=self.bounds,
        )

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, [*COUNTED, WINDOW_PARTS])

    def check(self, log: MemoryLog) -> None:
        written = [message.value() for message in log.messages(PERFORMANCE_REPORTS)]
        reports = [LAB.control.decode("PerformanceReport", value) for value in written]
        wanted = expected_reports(log, LAB)
        assert len({report["report_id"] for report in reports}) == len(reports)
        assert {key_of(report) for report in reports} == set(wanted)
        for report in reports:
            compare(report, wanted[key_of(report)])
        nonsense = [m for topic in COUNTED for m in log.messages(topic) if m.value() == b"nonsense"]
        assert len(log.messages(LAB.lane.dead_letters)) == len(nonsense)
        assert_same_as(self.undisturbed(log), log)

    def undisturbed(self, log: MemoryLog) -> MemoryLog:
        """Another log with the same input, worked off by one instance in one go."""
        other = MemoryLog()
        self.create(other)
        producer = other.backend(OUTSIDE).producer("outside")
        producer.init()
        producer.begin()
        for topic in (CONTRACTS, MANIFESTS, *COUNTED):
            producer.produce(
                Record(topic, m.value(), m.key(), m.headers() or (), m.partition())
                for m in log.messages(topic)
            )
        producer.commit()
        log, self.log = self.log, other
        logic = self.logic()
        loop = ExactlyOnceRunner(
            other.backend("one"),
            logic,
            service="service",
            group=self.group,
            transactional_id="one",
            clock=MemoryClock(other, "one"),
            quarantine=None,  # type: ignore[arg-type]
            max_batch=100_000,
        )
        self.log = log
        while not self.done(other) or logic.due():
            loop.step()
        return other


def assert_same_as(one: MemoryLog, other: MemoryLog) -> None:
    for topic in (PERFORMANCE_REPORTS, ALERTS):
        values = [sorted(message.value() or b"" for message in log.messages(topic)) for log in (one, other)]
        assert values[0] == values[1], topic


def compare(report: dict[str, Any], wanted: dict[str, Any]) -> None:
    names = (
        *("predictions", "fallbacks", "labelled", "assumed", "unlabelled", "late_labels"),
        *("mature", "label_share"),
    )
    assert {name: report[name] for name in names} == {name: wanted[name] for name in names}, key_of(report)
    assert report["artifact_digest"] == ARTIFACT
    for name in ("value_total", "value_squares"):
        close(report[name], wanted[name])
    if report["against"] is None:
        for metric in report["metrics"]:
            close(metric["value"], wanted["metrics"].get(metric["metric"]))
        return
    gains = {metric["metric"]: metric for metric in report["paired"]}
    for name in ("brier", "log_loss", "auc"):
        gain, p_value = wanted["gains"].get(name, (None, None))
        close(gains[name]["gain"], gain)
        if p_value is not None:
            close(gains[name]["p_value"], p_value)


def close(found: float | None, wanted: float | None) -> None:
    assert found == (None if wanted is None else pytest.approx(wanted, rel=1e-9, abs=1e-9))


def test_reports_equal_scikit_learn_over_the_whole_log_whatever_happens() -> None:
    simulate(EvaluatorScenario, 8)
