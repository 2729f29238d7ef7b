"""Every service within bounds, on a log that refuses a transaction that is too large or open for too long, and a member
that does not poll for too long, whatever waits and however slow the service is.

All that the service's own simulation feeds waits for it from the beginning, and more; each record that it reads or
writes costs it time; it is killed halfway; and in the end all is as the simulation's own oracle has it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.simulation.test_drift_simulation import DriftScenario
from tests.simulation.test_evaluator_simulation import EvaluatorScenario
from tests.simulation.test_joiner_simulation import JoinerScenario
from tests.simulation.test_rollout_simulation import RolloutScenario
from tests.simulation.test_scorer_simulation import ScorerScenario, ShadowScenario
from tests.simulation.test_sink_simulation import Storing
from tests.support.simulation import Scenario

from tailrace.sink import loop
from tailrace.sink.loop import Sink
from tailrace.streaming.backends.abstract import Backend
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.faults import Exceeded, LogLimits
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.bounds import Bounds
from tailrace.streaming.processor import Clock, HasDue, Output, Processor
from tailrace.streaming.records import Message

BOUNDS = Bounds(records=40, size=40_000, seconds=0.2)
LIMITS = LogLimits(records=80, size=120_000, open_ms=1_000, poll_ms=2_500)
"""What a single record comes to, or all windows that close at one time, is not split: so there is some room."""
UNBOUNDED = Bounds(10**9, 10**12, 10**6)
READ_MS, WRITTEN_MS = 4, 4
FEEDS = 60
FEEDS_OF_ROLLOUT = 400
"""It reads little more than a few reports a day."""


def costly(log: MemoryLog, make: Callable[[], Processor], alive: list[Processor]) -> Callable[[], Processor]:
    """A logic that takes its time; ``alive`` has the last one."""

    def made() -> Processor:
        logic: Any = make()
        process, restore = logic.process, logic.restore

        def processed(batch: Sequence[Message], clock: Clock) -> Output:
            output: Output = process(batch, clock)
            written = len(output.records) + len(output.dead_letters)
            log.pass_time(READ_MS * len(batch) + WRITTEN_MS * written)
            return output

        def restored(messages: Sequence[Message]) -> bool | None:
            more: bool | None = restore(messages)
            log.pass_time(READ_MS * len(messages))
            return more

        logic.process, logic.restore = processed, restored
        alive[:] = [logic]
        return alive[0]

    return made


def work_off(scenario: Scenario, bounds: Bounds = BOUNDS) -> None:
    rng = random.Random(4)
    log = MemoryLog(limits=LIMITS)
    scenario.max_batch = 5_000
    scenario.setup(log, rng)
    for _ in range(FEEDS_OF_ROLLOUT if isinstance(scenario, RolloutScenario) else FEEDS):
        scenario.feed(log, rng)
    scenario.finish(log, rng)
    scenario.bounds = bounds
    alive: list[Processor] = []
    scenario.logic = costly(log, scenario.logic, alive)  # type: ignore[method-assign]
    process = scenario.process(log.backend("first"), MemoryClock(log, "first"), "service-0")
    for turn in range(20_000):
        process.step()
        if turn == 25:
            # It is dead, and what it knew with it.
            log.pass_time(10_000)
            process = scenario.process(log.backend("second"), MemoryClock(log, "second"), "service-0")
        if scenario.done(log) and not any(isinstance(logic, HasDue) and logic.due() for logic in alive):
            break
    else:
        raise AssertionError("not everything is worked off")
    log.pass_time(60_000)
    scenario.check(log)


SCENARIOS = [
    ScorerScenario,
    ShadowScenario,
    JoinerScenario,
    DriftScenario,
    EvaluatorScenario,
    RolloutScenario,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_service_stays_within_the_bounds_of_a_step(scenario: type[Scenario]) -> None:
    work_off(scenario())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_log_refuses_a_service_without_bounds(scenario: type[Scenario]) -> None:
    """Otherwise the test above would show nothing."""
    with pytest.raises(Exceeded):
        work_off(scenario(), UNBOUNDED)


class SlowStoring(Storing):
    """Each block takes the store its time."""

    def process(self, backend: Backend, clock: MemoryClock, transactional_id: str) -> Sink:
        sink = super().process(backend, clock, transactional_id)
        insert = self.clients[-1].insert

        def inserted(*given: Any) -> None:
            insert(*given)
            clock.log.pass_time(300)

        self.clients[-1].insert = inserted  # type: ignore[method-assign]
        return sink


def test_the_sink_polls_in_time_however_slow_the_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "STEP_S", 1.0)
    work_off(SlowStoring())
    monkeypatch.setattr(loop, "STEP_S", 1e6)
    with pytest.raises(Exceeded):
        work_off(SlowStoring())
