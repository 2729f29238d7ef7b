"""A seeded world for services: instances on the in-memory log, and everything that can happen to them.

``simulate`` plays many schedules. In each, instances come and go, every client call may fail in every way
that the log's protocol allows (with the outcome unknown both ways), a call may stall while the rest of the
world goes on, a process may die at any call, markers come late, partitions move. Then the chaos stops, what
is left is worked off, and the scenario checks what a read_committed reader sees. A failing seed is named,
and replayed alone by ``TAILRACE_SEED=<seed> pytest <test>``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from tailrace.streaming.backends.abstract import (
    Abortable,
    Backend,
    Committed,
    Fatal,
    OutcomeUnknown,
    Retriable,
)
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.faults import Fault
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.bounds import STEP
from tailrace.streaming.processor import Output, Processor
from tailrace.streaming.records import DeadLetter, Message, TopicPartition
from tailrace.streaming.runner import ExactlyOnceRunner

LONG = os.environ.get("TAILRACE_CHAOS") == "long"


class Process(Protocol):
    """What a schedule runs: an exactly-once runner, or a service with a loop of its own."""

    def step(self) -> None: ...
    def close(self) -> None: ...


class Scenario:
    """What is simulated: made anew for each schedule, so that it can keep an account of what it fed."""

    group = "service"
    partitions = 3
    co_partitioned = False
    max_batch = 7
    bounds = STEP
    _still: tuple[Mapping[TopicPartition, Committed] | None, int] = None, 0

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        """Creates topics."""
        raise NotImplementedError

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        """Something happens in the world outside: called now and then, and a last time before the end."""
        raise NotImplementedError

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        """Writes what has to be there for everything to be worked off."""

    def logic(self) -> Processor:
        raise NotImplementedError

    def process(self, backend: Backend, clock: MemoryClock, transactional_id: str) -> Process:
        """One instance of the service; by default ``logic`` on the exactly-once runner."""
        return ExactlyOnceRunner(
            backend,
            self.logic(),
            service="service",
            group=self.group,
            transactional_id=transactional_id,
            clock=clock,
            quarantine=quarantine,
            max_batch=self.max_batch,
            co_partitioned=self.co_partitioned,
            bounds=self.bounds,
        )

    def done(self, log: MemoryLog) -> bool:
        """Whether everything that was fed is worked off."""
        raise NotImplementedError

    def is_still(self, log: MemoryLog) -> bool:
        """Whether nothing has been committed for so long that nothing is due that was read: each of its steps commits
        something, but for those that do again, a record at a time, what a lost store held: some tens.
        """
        log.pass_time(500)
        before, since = self._still
        now = log.committed(self.group)
        if now != before:
            self._still = now, log.now_ms
            return False
        return log.now_ms - since > 60_000

    def check(self, log: MemoryLog) -> None:
        """Compares what is in the log with what ought to be."""
        raise NotImplementedError


def simulate(
    scenario: Callable[[], Scenario], schedules: int, *, long: int | None = None, seed: int | None = None
) -> None:
    """Plays so many schedules, ``long`` for ``TAILRACE_CHAOS=long``; or the one of ``TAILRACE_SEED``, or ``seed``."""
    given = os.environ.get("TAILRACE_SEED", seed)
    seeds: Iterable[int] = range(long if LONG and long else schedules) if given is None else [int(given)]
    if given is None:
        logging.disable(logging.CRITICAL)
    try:
        for number in seeds:
            try:
                World(scenario(), number).play()
            except Exception as error:
                error.add_note(f"seed {number}: replay it alone with TAILRACE_SEED={number}")
                raise
    finally:
        logging.disable(logging.NOTSET)


def drained(log: MemoryLog, group: str, topics: Iterable[str]) -> bool:
    """Whether the group has committed everything that can be read from the topics, now and ever."""
    committed = log.committed(group)
    counts = log.topics()
    for topic in topics:
        for number in range(counts[topic]):
            if log.partition(TopicPartition(topic, number)).open:
                return False
            messages = log.messages(topic, number)
            at = committed.get(TopicPartition(topic, number))
            if messages and (at is None or at.offset <= messages[-1].offset()):
                return False
    return True


def quarantine(message: Message, reason: str) -> Output:
    lane = message.topic().rpartition(".")[0]
    return Output(dead_letters=[DeadLetter(f"{lane}.dead-letters", message, "quarantined", reason)])


class Crash(BaseException):
    """The process dies here and now; nothing of it runs any more."""


OUTSIDE = "outside"
"""The name of a client that is not part of the service: its transactions' markers may come late, no more."""

# What each call may fail with, and whether it has taken effect then.
_ERRORS: dict[str, list[tuple[type[Exception], bool]]] = {
    "topics": [(Retriable, False)],
    "subscribe": [(Retriable, False)],
    "consume": [(Retriable, False), (Retriable, True)],
    "poll": [(Retriable, False)],
    "committed": [(Retriable, False)],
    "earliest": [(Retriable, False)],
    "seek": [(Retriable, False)],
    "commit": [(Retriable, False), (Retriable, True), (Abortable, False)],
    "init": [(Retriable, False), (Retriable, True)],
    "begin": [(Retriable, False), (Abortable, False)],
    "produce": [(Abortable, False), (Abortable, True)],
    "send_offsets": [(Retriable, False), (Retriable, True), (Abortable, False), (Abortable, True)],
    "commit_transaction": [
        (Retriable, False),
        (Retriable, True),
        (Abortable, False),
        (OutcomeUnknown, False),
        (OutcomeUnknown, True),
    ],
    "abort_transaction": [
        (Retriable, False),
        (Retriable, True),
        (OutcomeUnknown, False),
        (OutcomeUnknown, True),
    ],
}


class _Instance:
    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process


class World:
    """One schedule."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.rng = random.Random(seed)
        self.log = MemoryLog(hook=self._hook, rng=self.rng)
        self.scenario = scenario
        self.slots = self.rng.randint(1, 3)
        self.trouble = self.rng.choice([0.01, 0.03, 0.08])
        self.stable_ids = self.rng.random() < 0.7
        self.turns = self.rng.randint(10, 60)
        self.instances: list[_Instance] = []
        self.stack: list[str] = []
        self.cut_off: dict[str, int] = {}
        self.troubled: dict[str, int] = {}
        self.chaos = True
        self.started = 0

    def play(self) -> None:
        self.chaos = False
        self.scenario.setup(self.log, self.rng)
        self.chaos = True
        for slot in range(self.slots):
            self._start(slot)
        for _ in range(self.turns):
            self._happen()
        self._calm()
        self.scenario.check(self.log)

    def _calm(self) -> None:
        """No more trouble: what was started is carried on with, until all is done."""
        self.chaos = False
        self.scenario.feed(self.log, self.rng)
        self.scenario.finish(self.log, self.rng)
        if not self.instances:
            self._start(0)
        for _ in range(3_000):
            for instance in list(self.instances):
                self._step(instance)
            if not self.instances:
                self._start(0)
            if self.scenario.done(self.log):
                break
        else:
            raise AssertionError("stuck: not everything is worked off")
        # Whatever is still open somewhere (a dead instance's transaction) comes to its end.
        self.log.pass_time(60_000)

    def _happen(self) -> None:
        chance = self.rng.random()
        idle = [i for i in self.instances if i.name not in self.stack]
        if chance < 0.70:
            if idle:
                self._step(self.rng.choice(idle))
        elif chance < 0.85:
            self.scenario.feed(self.log, self.rng)
        elif chance < 0.90:
            self.log.pass_time(self.rng.choice([5, 100, 1_000, 5_000, 8_000]))
        elif chance < 0.94:
            if idle:
                self._stop(self.rng.choice(idle))
        elif len(self.instances) < self.slots + 1:
            self._start(self.rng.randrange(self.slots))

    def _start(self, slot: int) -> None:
        self.started += 1
        name = f"instance-{self.started}"
        ordinal = slot if self.stable_ids else self.started
        backend = self.log.backend(name)
        clock = MemoryClock(self.log, name)
        process = self.scenario.process(backend, clock, f"service-{ordinal}")
        self.instances.append(_Instance(name, process))

    def _step(self, instance: _Instance) -> None:
        self.stack.append(instance.name)
        try:
            instance.process.step()
        except Crash:
            self.instances.remove(instance)
            if not self.chaos:
                self.log.pass_time(10_000)  # its session ends, so that there are turns left for the others
        except Fatal:
            self.instances.remove(instance)
            self._close(instance)
        finally:
            self.stack.pop()

    def _stop(self, instance: _Instance) -> None:
        self.instances.remove(instance)
        self.stack.append(instance.name)
        try:
            self._close(instance)
        finally:
            self.stack.pop()

    def _close(self, instance: _Instance) -> None:
        with contextlib.suppress(Crash):
            instance.process.close()

    def _hook(self, client: str, call: str) -> Fault | None:
        if not self.chaos:
            return None
        if client == OUTSIDE:
            return Fault(marker_delay_ms=self.rng.choice([0, 0, 20, 1_000]))
        errors = _ERRORS.get(call)
        if self.log.now_ms < self.cut_off.get(client, 0) and errors:
            raise Retriable(f"{client} is cut off")
        # Trouble comes in clusters: what follows on a failure is where loops go wrong.
        trouble = 0.4 if self.troubled.get(client, 0) > 0 else self.trouble
        self.troubled[client] = self.troubled.get(client, 0) - 1
        if self.rng.random() >= trouble:
            return None
        chance = self.rng.random()
        if chance < 0.2:
            crash = Crash(f"{client} died in {call}")
            if self.rng.random() < 0.5:
                raise crash
            return Fault(crash, applied=True)
        if chance < 0.5:
            if len(self.stack) < 3:
                self._stall()
            return None
        if not errors:
            return None
        self.troubled[client] = 6
        if call in ("commit_transaction", "abort_transaction"):
            delay = self.rng.choice([10, 50, 200, 3_000])
            if chance < 0.60:
                return Fault(marker_delay_ms=delay)
            if chance < 0.70:
                return Fault(OutcomeUnknown(f"{call} has gone astray"), astray_ms=delay)
        if chance < 0.73:
            self.cut_off[client] = self.log.now_ms + self.rng.choice([100, 3_000, 10_000, 20_000])
            raise Retriable(f"{client} is cut off")
        kind, applied = self.rng.choice(errors)
        return Fault(kind(f"injected into {call}"), applied=applied)

    def _stall(self) -> None:
        """Nothing goes on in the instance that makes the call, for a moment or for longer than its session."""
        if self.rng.random() < 0.5:
            self.log.pass_time(self.rng.choice([1_000, 5_000, 7_000]))
        for _ in range(self.rng.choice([1, 5, 30])):
            self._happen()
