"""Where the scorer's time goes, step by step, in microseconds of CPU per record.

Without a broker: batches go through the processor as they do in the service, and each step's own time is taken, without
that of the steps within it.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from benchmarks.empty_loop import PARTITIONS
from benchmarks.harness import arguments, say
from benchmarks.scorer_cases import CASES, Case
from tailrace.avro.columns import splice
from tailrace.avro.columns.decoder import ColumnDecoder
from tailrace.runtime.memory import settle_memory
from tailrace.scorer import pipeline, processor
from tailrace.scorer.batch import Batch
from tailrace.scorer.serving import watermarks
from tailrace.scorer.steps import event
from tailrace.streaming.records import PlainMessage
from tailrace.streaming.time_source import SystemClock
from tailrace.testing.memory_registry import MemoryRegistry

REST = "all else"
STEPS: list[tuple[str, Any, str]] = [
    ("take the messages' references", Batch, "of"),
    ("read: join the values, tell schemas apart", processor, "read_requests"),
    ("read: decode Avro (kernel)", ColumnDecoder, "decode"),
    ("check the input", processor, "check"),
    ("route", processor, "route"),
    ("event: prepare the pieces", event, "encode_events"),
    ("event: put together (kernel)", splice, "splice"),
    ("event: values put together", splice.Splice, "finish"),
    ("write watermark records", watermarks, "advance"),
]
"""Functions, beside the steps of SCORING_STEPS."""


class _Times:
    """Nanoseconds of CPU by step, each without the steps within it."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self._within: list[int] = []

    def of(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._within.append(0)
            started = time.thread_time_ns()
            try:
                return function(*arguments, **named)
            finally:
                took = time.thread_time_ns() - started
                self.spent[step] = self.spent.get(step, 0) + took - self._within.pop()
                if self._within:
                    self._within[-1] += took

        return timed


@contextmanager
def _timed() -> Iterator[_Times]:
    times, before = _Times(), []
    for step, owner, name in STEPS:
        original = getattr(owner, name)
        before.append((owner, name, owner.__dict__[name]))
        setattr(owner, name, times.of(step, original))
    before.append((pipeline, "SCORING_STEPS", pipeline.SCORING_STEPS))
    pipeline.SCORING_STEPS = tuple(times.of(step.__name__, step) for step in pipeline.SCORING_STEPS)
    try:
        yield times
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)


def messages(case: Case, registry: MemoryRegistry, count: int) -> list[PlainMessage]:
    topic = case.lane.requests
    return [
        PlainMessage(topic, n % PARTITIONS, 1_000_000 + n, value, b"%d" % n, timestamp_ms=1_700_000_100_000)
        for n, value in enumerate(case.requests(registry, count))
    ]


def profile(case: Case, batch: int, rounds: int) -> dict[str, float]:
    """By step, the median of the rounds; and of everything, without taking any step's time."""
    registry = MemoryRegistry()
    scorer, clock = case.scorer(registry), SystemClock()
    taken = messages(case, registry, batch)
    for _ in range(3):
        scorer.process(taken, clock)
    settle_memory()
    plain, steps = [], []
    for _ in range(rounds):
        started = time.thread_time_ns()
        scorer.process(taken, clock)
        plain.append(time.thread_time_ns() - started)
        with _timed() as times:
            times.of(REST, scorer.process)(taken, clock)
        steps.append(times.spent)

    def us(values: Sequence[int]) -> float:
        return round(statistics.median(values) / batch / 1e3, 3)

    names = [*(step for step, _, _ in STEPS), *(step.__name__ for step in pipeline.SCORING_STEPS), REST]
    return {name: us([spent.get(name, 0) for spent in steps]) for name in names} | {"in all": us(plain)}


def main() -> None:
    parser = arguments("Where the scorer's time goes, in microseconds of CPU per record.")
    parser.add_argument("--batch", type=int, default=5_000)
    parser.set_defaults(rounds=30)
    given = parser.parse_args()
    profiles = {}
    for name, case in CASES.items():
        say(name)
        profiles[name] = profile(case, given.batch, given.rounds)
    if given.json:
        print(json.dumps(profiles))
        return
    print(f"| step | {' | '.join(profiles)} |\n| --- |{' --- |' * len(profiles)}")
    for step in next(iter(profiles.values())):
        print(f"| {step} | {' | '.join(f'{facts[step]:.2f}' for facts in profiles.values())} |")


if __name__ == "__main__":
    main()
