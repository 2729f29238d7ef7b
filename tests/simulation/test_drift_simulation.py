"""drift under seeded schedules: reports and alerts are those that scipy and a fold give over the whole log, whatever
happens on the way.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.support.drifting import CONTRACT, DriftWorld, draw, expected_tests
from tests.support.simulation import OUTSIDE, Scenario, drained, quarantine, simulate

from tailrace.contracts.records.lanes import (
    ALERTS,
    CONTRACTS,
    DRIFT_REPORTS,
    MANIFESTS,
    WINDOW_PARTS,
    WINDOW_STATE,
)
from tailrace.drift.windows import DriftWindows
from tailrace.errors import BadRecord
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.processor import Processor
from tailrace.streaming.records import Message, Record
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.watermark_records import watermark_record, watermark_time
from tailrace.testing.control_records import anybody
from tailrace.windows.processor import WindowedProcessor

TOPICS = {"credit.predictions": "champion", "credit.shadow-predictions": "shadow"}
SECOND = 1_000
LATENESS = 2 * SECOND
_DRIFT = "window: 10s, min_rows: 8, false_alerts: {at_most: 1, per: 10s}"
FIRST = (
    CONTRACT.replace("lateness: 1h", "lateness: 2s, skew: 1000d").replace(
        "window: 1d, min_rows: 20, false_alerts: {at_most: 1, per: 30d}", _DRIFT
    )
    + "alerts: {silence: 1000d}\n"
)
CHANGED = FIRST.replace("window: 10s", "window: 15s").replace(", by: [region]", "")


class DriftScenario(Scenario):
    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.log = log
        self.world = DriftWorld(FIRST)
        self.draws = np.random.default_rng(rng.randrange(2**32))
        self.world.publish(1, draw(60, self.draws))
        for topic in (*TOPICS, "credit.dead-letters"):
            log.create_topic(topic, self.partitions)
        for topic in (CONTRACTS, MANIFESTS, WINDOW_PARTS, WINDOW_STATE, DRIFT_REPORTS, ALERTS):
            log.create_topic(topic)
        self.producer = log.backend(OUTSIDE).producer("outside")
        self.producer.init()
        self._write(self.world.records)
        self.now: dict[tuple[str, int], int] = defaultdict(int)
        self.champion, self.turn = 1, 0
        self.bad = 0

    def _write(self, records: list[Record]) -> None:
        self.producer.begin()
        self.producer.produce(records)
        self.producer.commit()

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        self.turn += 1
        known = len(self.world.records)
        if self.turn == 3:
            self.world.publish(2, draw(60, self.draws, shift=1.5))
        if self.turn == 4 and rng.random() < 0.7:
            self.champion = 2
        if self.turn == 5 and rng.random() < 0.5:
            self.world.apply(CHANGED)
        self._write(self.world.records[known:])
        self._write([self._record(rng) for _ in range(rng.randint(5, 40))])

    def _record(self, rng: random.Random) -> Record:
        topic, partition = rng.choice([*TOPICS, "credit.predictions"]), rng.randrange(self.partitions)
        at = topic, partition
        now = self.now[at] = self.now[at] + rng.choice([0, 0, 100, 700, 2_000])
        if rng.random() < 0.05:
            return watermark_record(topic, partition, now)
        row = draw(1, self.draws, shift=rng.choice([0.0, 1.5]) if self.turn > 2 else 0.0)[0]
        version = self.champion if topic == "credit.predictions" else 1
        time = max(0, now - rng.choice([0, 0, 0, 1_500, 6_000, 25_000]))
        value = self.world.value(row, time, version, role=TOPICS[topic])
        if rng.random() < 0.02:
            value, self.bad = value[:-1], self.bad + 1
        return Record(topic, value, None, (), partition)

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        """In half of the schedules time passes everywhere until all windows are over."""
        if rng.random() < 0.5:
            self._write(
                [watermark_record(topic, p, 10_000_000) for topic in TOPICS for p in range(self.partitions)]
            )

    def logic(self) -> Processor:
        def catch_up() -> list[Message]:
            return [message for topic in (CONTRACTS, MANIFESTS) for message in self.log.messages(topic)]

        windows = DriftWindows(self.world.control.by("drift"), self.world.open_reference, anybody, catch_up)
        return WindowedProcessor(
            windows,
            self.world.control.codec,
            lambda topic: self.log.topics()[topic],
            keep_after=20,
            bounds=self.bounds,
        )

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, [*TOPICS, WINDOW_PARTS])

    def check(self, log: MemoryLog) -> None:
        decode = self.world.control.decode
        reports = [decode("DriftReport", message.value()) for message in log.messages(DRIFT_REPORTS)]
        expected = expected_reports(log, self.world)
        assert len({report["report_id"] for report in reports}) == len(reports)
        by_key = {tuple(report[name] for name in KEY): report for report in reports}
        assert by_key.keys() == expected.keys()
        for key, wanted in expected.items():
            check_report(by_key[key], wanted)
        alerts = [decode("Alert", message.value()) for message in log.messages(ALERTS)]
        sent = [
            (int(a["detail"]["window_start"]), a["state"], a["version"], a["detail"]["segment"])
            for a in alerts
        ]
        assert sorted(sent) == sorted(expected_alerts(expected, self.world))
        assert len(log.messages("credit.dead-letters")) == self.bad


KEY = ("contract_digest", "window_start", "role", "version", "segment")


def check_report(report: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in ("rows", "late", "verdict"):
        assert report[name] == wanted[name]
    for test, other in zip(report["tests"], wanted["tests"], strict=True):
        for name in ("feature", "test", "drifted"):
            assert test[name] == other[name]
        for name in ("statistic", "p_value", "q_value", "effect"):
            assert test[name] == (None if other[name] is None else pytest.approx(other[name], abs=1e-9))


def expected_reports(log: MemoryLog, world: DriftWorld) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The reports of all windows that are over, from all that is in the log."""
    contracts = {contract.digest: contract for contract in world.contracts}
    rows: list[dict[str, Any]] = []
    least = dict.fromkeys(TOPICS.values(), 2**62)
    for topic, role in TOPICS.items():
        for partition in range(log.topics()[topic]):
            clock = -(2**62)
            for message in log.messages(topic, partition):
                time = watermark_time(message)
                event = None if time is not None else _decoded(world, message)
                if event is not None:
                    time = event["event_time"]
                    rows.append(
                        {"at": len(rows), "before": clock, "event": event, **_whose(event, contracts)}
                    )
                if time is not None:
                    clock = max(clock, time)
            least[role] = min(least[role], clock)
    if not rows:
        return {}
    segments = [
        {**{k: v for k, v in row.items() if k != "event"}, "segment": segment}
        for row in rows
        for segment in ("", f"region={row['event']['request']['region']}")
        if segment == "" or contracts[row["contract_digest"]].drift.by
    ]
    end = pl.col("start") + pl.col("length")
    table = pl.DataFrame(segments).with_columns(late=end <= pl.col("before") - LATENESS)
    at_clock = pl.col("before") - pl.col("before") % pl.col("length")
    table = table.with_columns(window_start=pl.when("late").then(at_clock).otherwise("start"))
    reports = {}
    for key, own in table.group_by(KEY, maintain_order=True):
        contract = contracts[str(key[0])]
        closes = own["window_start"][0] + own["length"][0] + LATENESS
        if closes > least[str(key[2])]:
            continue
        events = [rows[at]["event"] for at in own.filter(~pl.col("late"))["at"]]
        values = [
            {**e["request"], "score": e["score"], "predicted_class": e["predicted_class"]} for e in events
        ]
        tests = expected_tests(contract, values, world.training[own["version"][0]])
        verdict = "drift" if any(test["drifted"] for test in tests) else "quiet"
        if len(values) < contract.drift.min_rows:
            verdict = "too-few-rows"
        reports[key] = {
            "rows": len(values),
            "late": int(own["late"].sum()),
            "verdict": verdict,
            "tests": tests,
            "closes": closes,
        }
    return reports


def _decoded(world: DriftWorld, message: Message) -> dict[str, Any] | None:
    try:
        return world.codec.decode(message.value()).record
    except BadRecord:
        return None


def _whose(event: Mapping[str, Any], contracts: Mapping[str, Any]) -> dict[str, Any]:
    length = contracts[event["contract_digest"]].drift.window_ms
    facts = {name: event[name] for name in ("contract_digest", "role", "version")}
    return {**facts, "length": length, "start": event["event_time"] - event["event_time"] % length}


def expected_alerts(
    reports: Mapping[tuple[Any, ...], Mapping[str, Any]], world: DriftWorld
) -> list[tuple[int, str, int, str]]:
    """Window, state, version and segment of each alert that champions' reports come to, taken in their order."""
    windows: dict[tuple[int, int, str], list[tuple[int, str, Mapping[str, Any]]]] = defaultdict(list)
    for (digest, start, role, version, segment), report in reports.items():
        if role == "champion":
            windows[report["closes"], start, digest].append((version, segment, report))
    is_open: set[tuple[int, str]] = set()
    alerts = []
    for (_, start, digest), own in sorted(windows.items()):
        before = set(is_open)
        for version, segment, report in own:
            if report["verdict"] == "drift":
                is_open.add((version, segment))
            elif report["verdict"] == "quiet":
                is_open.discard((version, segment))
        answering = {version for version, _, report in own if report["rows"]}
        judged = {"", "region=north", "region=south"} if digest == world.contracts[0].digest else {""}
        gone = {(v, s) for v, s in is_open if (answering and v not in answering) or s not in judged}
        is_open -= gone
        alerts += [(start, "raised", *which) for which in is_open - before]
        alerts += [(start, "resolved", *which) for which in before - is_open]
    return alerts


def test_reports_and_alerts_equal_a_computation_over_the_whole_log() -> None:
    simulate(DriftScenario, 12)


def written(seed: int, instances: int, batch: int) -> list[list[bytes | None]]:
    """Values of reports, by stream, and of alerts that so many instances come to who take so many records at a time."""
    log, rng = MemoryLog(), random.Random(seed)
    scenario = DriftScenario()
    scenario.setup(log, rng)
    for _ in range(12):
        scenario.feed(log, rng)
    far = [watermark_record(topic, p, 10_000_000) for topic in TOPICS for p in range(scenario.partitions)]
    scenario._write(far)
    loops = [
        ExactlyOnceRunner(
            log.backend(f"instance-{number}"),
            scenario.logic(),
            service="drift",
            group=scenario.group,
            transactional_id=f"drift-{number}",
            clock=MemoryClock(log, f"instance-{number}"),
            quarantine=quarantine,
            max_batch=batch,
        )
        for number in range(instances)
    ]
    for _ in range(3_000):
        for loop in loops:
            loop.step()
        if scenario.done(log):
            break
    decode = scenario.world.control.decode
    reports = [message.value() for message in log.messages(DRIFT_REPORTS)]
    by_role = [[v for v in reports if decode("DriftReport", v)["role"] == role] for role in TOPICS.values()]
    return [*by_role, [message.value() for message in log.messages(ALERTS)]]


def test_a_log_has_one_set_of_reports_byte_for_byte() -> None:
    first = written(3, instances=1, batch=1_000)
    assert all(first)
    assert first == written(3, instances=1, batch=3) == written(3, instances=3, batch=11)
