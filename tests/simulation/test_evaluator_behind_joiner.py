"""The evaluator on what the joiner wrote, whatever happened to the joiner: its last reports count every prediction and
every label once, and are the same bytes however the log is cut into batches.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from tests.simulation.test_joiner_simulation import REGISTRY, SECOND, JoinerScenario
from tests.support.simulation import drained, simulate

from tailrace.contracts.records.lanes import (
    ALERTS,
    CONTRACTS,
    MANIFESTS,
    PERFORMANCE_REPORTS,
    WINDOW_PARTS,
    WINDOW_STATE,
)
from tailrace.evaluator.windows import PerformanceWindows
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.watermark_records import watermark_record, watermark_time
from tailrace.testing.signed_records import Control
from tailrace.windows.processor import WindowedProcessor

CONTROL = Control(REGISTRY)
CODEC = CONTROL.codec
WINDOW = 60 * SECOND
COUNTED = ("credit.predictions", "credit.shadow-predictions", "credit.outcomes")


class EvaluatedScenario(JoinerScenario):
    def check(self, log: MemoryLog) -> None:
        for partition in range(self.partitions):
            for topic in COUNTED[:2]:
                self._append(log, watermark_record(topic, partition, self.now + 10**6 * SECOND))
            for stream in ("predictions", "shadow-predictions"):
                self._append(
                    log,
                    watermark_record("credit.outcomes", partition, self.now + 10**6 * SECOND, stream=stream),
                )
        few, many = self._evaluate(log, 3), self._evaluate(log, 1_000)
        assert few == many
        self._hold_to_outcomes(log, few)

    def _evaluate(self, log: MemoryLog, max_batch: int) -> list[bytes]:
        """The reports that one instance writes, reading a copy of the log in batches of this size."""
        other = MemoryLog()
        other.pass_time(10**10)
        for topic in (*COUNTED, "credit.dead-letters"):
            other.create_topic(topic, self.partitions)
        for topic in (WINDOW_PARTS, WINDOW_STATE, PERFORMANCE_REPORTS, ALERTS, CONTRACTS, MANIFESTS):
            other.create_topic(topic)
        for topic in (CONTRACTS, *COUNTED):
            for message in log.messages(topic):
                other.append(
                    topic, message.value(), message.key(), message.headers() or (), message.partition()
                )
        counts = other.topics()
        kind = PerformanceWindows(CONTROL.by("evaluator"), _nobody, lambda: other.messages(CONTRACTS))
        loop = ExactlyOnceRunner(
            other.backend("one"),
            WindowedProcessor(kind, CODEC, lambda topic: counts[topic]),
            service="evaluator",
            group="evaluator",
            transactional_id="one",
            clock=MemoryClock(other, "one"),
            quarantine=None,  # type: ignore[arg-type]
            max_batch=max_batch,
        )
        for _ in range(5_000):
            loop.step()
            if drained(other, "evaluator", [*COUNTED, WINDOW_PARTS]):
                break
        else:
            raise AssertionError("stuck")
        return sorted(message.value() or b"" for message in other.messages(PERFORMANCE_REPORTS))

    def _hold_to_outcomes(self, log: MemoryLog, reports: list[bytes]) -> None:
        horizon = self.made.contract.labels.horizon_ms
        last: dict[str, dict[str, Any]] = {}
        for message in log.messages("credit.outcomes"):
            if watermark_time(message) is None:
                outcome = self.made.outcome(message)
                start = outcome["prediction"]["event_time"] // WINDOW * WINDOW
                if outcome["known_at"] < start + WINDOW + horizon:
                    last[outcome["prediction"]["prediction_id"]] = outcome
        made: Counter[Any] = Counter()
        known: dict[Any, Counter[str]] = defaultdict(Counter)
        for topic in COUNTED[:2]:
            for partition in range(self.partitions):
                clock = 0
                for message in log.messages(topic, partition):
                    time = self._time(message)
                    if watermark_time(message) is None:
                        record = self.made.codec.decode(message.value()).record
                        start = time // WINDOW * WINDOW
                        if max(time, clock) < start + WINDOW + horizon:
                            made[_about(record)] += 1
                    clock = max(clock, time)
        for outcome in last.values():
            about = _about(outcome["prediction"])
            if outcome["duplicate_of"] is not None:
                made[about] -= 1
            else:
                known[about][outcome["state"]] += 1
        counted = {}
        for report in (CODEC.decode("PerformanceReport", value) for value in reports):
            if report["age"] == horizon and report["against"] is None and not report["segment"]:
                about = report["window_start"], report["role"], report["version"], report["contract_digest"]
                assert about not in counted
                counted[about] = (
                    report["predictions"],
                    report["labelled"],
                    report["assumed"],
                    report["unlabelled"],
                )
        assert counted == {
            about: (
                n,
                known[about]["labelled"] + known[about]["assumed"],
                known[about]["assumed"],
                known[about]["unlabelled"],
            )
            for about, n in made.items()
        }


def _about(prediction: dict[str, Any]) -> tuple[Any, ...]:
    start = prediction["event_time"] // WINDOW * WINDOW
    return start, prediction["role"], prediction["version"], prediction["contract_digest"]


def _nobody(_record: Any) -> Any:
    raise AssertionError("there are no packages")


def test_every_prediction_and_label_is_counted_once() -> None:
    simulate(EvaluatedScenario, 15)
