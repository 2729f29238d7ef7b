"""The trainer as it turns: reads, waits until all is read, decides, writes, and has runs worked on, one at a time.

Reading is at least once and from the start; what is decided is only what the topics say, so a crash at any point
costs time and nothing else. Writing is in transactions under one id: an instance that has lost its place is fenced off
before its successor looks for what is to be done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from tailrace.access.own_folders import cache_folder
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.record_types import TrainingRunRecord
from tailrace.errors import TailraceError, Unavailable
from tailrace.runtime.service import Service
from tailrace.signing.trust import TrustStore
from tailrace.statistics.metrics import METRIC
from tailrace.streaming.backends.abstract import Fatal, LogError
from tailrace.streaming.backends.kafka.producer import KafkaProducer
from tailrace.streaming.backends.kafka.reading import Ends
from tailrace.streaming.consumer_loop import so_far
from tailrace.streaming.records import Message, Record, TopicPartition
from tailrace.telemetry.metrics import LAG, POSITION, RECORDS
from tailrace.trainer.decide import HoldRun, Refuse, ReleaseRun, StartRun, WritePlan, decide, expecting
from tailrace.trainer.events import TOPICS, Events, failure_of, held_of, record_of, refusal_of
from tailrace.trainer.faust_app import make_app
from tailrace.trainer.happened import CaughtUp
from tailrace.trainer.processes import RunPostponed, WorkerLimits, WorkerLine, Workers
from tailrace.trainer.run import FAILED, PUBLISHED, TRAINED, TRAINING, Run
from tailrace.trainer.state import State

log = logging.getLogger(__name__)

_TURN_S = 0.05
_PATIENCE_S = 1.0
_STOP_S = 8.0
_LIBRARIES = ("faust", "mode", "aiokafka", "tailrace.trainer.faust_app")
_PROGRESS_EVERY_S = 10.0
"""How often a run's progress goes to its topic; every line of it goes to the log."""

_Record = tuple[str, Mapping[str, Any]]  # the schema's name, and the record


class TrainerLoop:
    """The trainer, until the service is told to stop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._records = service.records
        trust = TrustStore(service.settings.home / "keys")
        self._events = Events(self._records, trust.command_refusal)
        self._ends = Ends(service.connection)
        settings = service.settings
        limits = WorkerLimits(settings.train_memory_mb << 20, float(settings.train_seconds))
        self._workers = Workers(limits, settings.home)
        self._state = State()
        self._folded = 0
        self._processed: dict[str, int] = {}
        self._failure: BaseException | None = None
        # What has to be read, and of how many events it is known that nothing before them is missing.
        self._target: dict[TopicPartition, int] | None = None
        self._target_folded = -1
        self._decided = False
        self._producer: KafkaProducer | None = None
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._app: Any = None
        self.alive_ns = time.perf_counter_ns()
        self.waiting: str | None = "starting"

    def run(self) -> None:
        """Runs until the service is told to stop.

        Raises:
            Fatal: another instance has taken over, or Kafka lets this one write no more.
        """
        for library in _LIBRARIES:
            logging.getLogger(library).setLevel(logging.WARNING)
        asyncio.run(self._run())

    async def _run(self) -> None:
        while not await self._topics_exist():
            if self._service.stop.is_set():
                return
            await asyncio.sleep(_PATIENCE_S)
        folder = cache_folder(self._service.settings.home, self._service.name) / "faust"
        self._app = make_app(self._service.connection, self._service.group, list(TOPICS), self._read, folder)
        await self._app.start()
        try:
            while not self._service.stop.is_set():
                pause = await self._turn()
                if self._failure is not None:
                    raise self._failure
                if self._app.should_stop:
                    raise Fatal(f"Faust has stopped: {self._app.crash_reason!r}")
                await asyncio.sleep(pause)
        finally:
            _end_at_last()
            await self._end_work()
            await self._workers.close()
            if self._producer is not None:
                self._producer.close()
            self._ends.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._app.stop(), _STOP_S)

    async def _topics_exist(self) -> bool:
        try:
            await asyncio.to_thread(self._ends.of, list(TOPICS))
        except (TailraceError, LogError) as error:
            if isinstance(error, Fatal):
                raise
            self.alive_ns, self.waiting = time.perf_counter_ns(), str(error)
            return False
        return True

    # Reading ---

    async def _read(self, message: Message) -> None:
        """Folds one record. A bug is not Faust's to hide: it stops the process."""
        try:
            while True:
                try:
                    event = self._events.of(message)
                    break
                except Unavailable as error:
                    self.waiting = str(error)
                    await asyncio.sleep(_PATIENCE_S)
        except Exception as error:
            self._failure = error
            raise
        if event is not None:
            self._state, _ = decide(self._state, event)
            self._folded += 1
        topic, offset = message.topic(), message.offset()
        self._processed[topic] = max(offset, self._processed.get(topic, -1))
        RECORDS.labels(topic).inc()

    def _is_read(self, target: Mapping[TopicPartition, int]) -> bool:
        """Whether everything before the target was fetched, and what was fetched was folded."""
        done = True
        for (topic, partition), end in target.items():
            position, last = self._app.consumer.reached.get(topic, (0, -1))
            labels = self._service.group, topic, str(partition)
            POSITION.labels(*labels).set(position)
            LAG.labels(*labels).set(max(0, end - position))
            done &= position >= end and self._processed.get(topic, -1) >= last
        return done

    # One turn ---

    async def _turn(self) -> float:
        """Does what there is to do, and says how long to wait."""
        self.alive_ns = time.perf_counter_ns()
        if not self._assigned():
            await self._end_work()
            self._producer, self._target, self._decided = None, None, False
            # Another instance may hold all there is; this one stands by.
            self.waiting = None if self._app.consumer_generation_id else "joining the group"
            return _TURN_S
        try:
            if self._producer is None:
                await self._init()
            if self._decided and self._folded == self._target_folded:
                self.waiting = None
                return _TURN_S  # nothing happened since
            if not await self._caught_up():
                return _TURN_S
            self._decided, self.waiting = True, None
            await self._act()
        except LogError as error:
            if isinstance(error, Fatal):
                raise
            self._forget_producer(error)
            return _PATIENCE_S
        except (Unavailable, TailraceError) as error:  # a registry is away, or topics are yet to be made
            self.waiting, self._decided = str(error), False
            return _PATIENCE_S
        return _TURN_S

    def _assigned(self) -> bool:
        consumer = self._app.consumer
        held = {tp.topic for tp in consumer.assignment()} if consumer is not None else set()
        return held == set(TOPICS) and not self._app.rebalancing

    async def _init(self) -> None:
        """Ends what a predecessor has left, so that whatever it wrote is on the topics before their ends are asked."""
        producer = self._service.kafka.producer(self._service.group)
        await asyncio.to_thread(producer.init)
        self._producer, self._target, self._decided = producer, None, False

    async def _caught_up(self) -> bool:
        """Whether everything was read that was there when the last event was known."""
        if self._target is None or self._folded != self._target_folded:
            folded = self._folded
            self._target = await asyncio.to_thread(self._ends.of, list(TOPICS))
            self._target_folded = folded
        if not self._is_read(self._target):
            if not self._decided:
                self.waiting = "reading what has been decided so far" + so_far(self._folded)
            return False
        if self._folded != self._target_folded:
            self._target = None
            return False
        return True

    async def _act(self) -> None:
        """Decides and does it. What is written is read back before anything else is decided."""
        _, actions = decide(self._state, CaughtUp())
        records: list[_Record] = []
        for action in actions:
            if isinstance(action, StartRun) and not self._working():
                self._task = asyncio.create_task(self._work(action.run))
            elif isinstance(action, Refuse):
                records.append(("Alert", refusal_of(action, time.time_ns() // 1_000_000)))
            elif isinstance(action, HoldRun | ReleaseRun):
                records.append(("Alert", held_of(action, time.time_ns() // 1_000_000)))
            elif isinstance(action, WritePlan):
                records.append(("TrainingRun", await self._plan(action.run)))
        if records:
            await self._write(records)
        if not self._working() and expecting(self._state):
            await self._workers.prepare()

    async def _plan(self, run: Run) -> TrainingRunRecord:
        applied = self._state.of(run.model).contract
        assert applied is not None
        ends = await asyncio.to_thread(self._ends.of, [Lane(applied.contract.lane).outcomes])
        offsets = sorted((tp.partition, end) for tp, end in ends.items())
        log.info("planned", extra={"run": run.run_id, "model": run.model, "labels": run.labels})
        return record_of(run, offsets=[{"partition": p, "offset": end} for p, end in offsets])

    async def _write(self, records: list[_Record]) -> None:
        encoded = [self._records.record(name, dict(record)) for name, record in records]
        if self._producer is None:
            raise Unavailable("the producer is being replaced")
        async with self._writing:
            await asyncio.to_thread(_transaction, self._producer, encoded)
        self._target, self._decided = None, False

    def _forget_producer(self, error: LogError) -> None:
        """It is not known what became of a write: a new producer ends it, then all is read again up to there."""
        log.warning("writing", extra={"error": str(error)})
        if self._producer is not None:
            self._producer.close()
        self._producer, self._decided, self.waiting = None, False, str(error)

    # Working ---

    def _working(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _work(self, run: Run) -> None:
        try:
            await self._worked(run)
        except asyncio.CancelledError:
            raise
        except (RunPostponed, Unavailable, LogError) as error:
            if isinstance(error, Fatal):
                self._failure = error
            elif isinstance(error, LogError):
                self._forget_producer(error)
            log.warning("a run is to be done again", extra={"run": run.run_id, "why": str(error)})
            await asyncio.sleep(_PATIENCE_S)
        except Exception as error:
            self._failure = error
        self._decided = False

    async def _worked(self, run: Run) -> None:
        """Has a run worked on and writes what comes of it."""
        known = self._state.of(run.model)
        applied = self._events.contract(run.contract_digest)
        if applied is None:
            reason = f"contract {run.contract_digest[:12]}, by which it was planned, was never in force"
            await self._write(ended(self._state.of(run.model).runs, run, FAILED, {"reason": reason}))
            return
        job = {"run": record_of(run), "contract": applied.resolved, "best": best_of(known.runs)}
        facts: dict[str, Any] = {"templates": []}
        last_sent = time.monotonic()
        await self._write([_step(run, TRAINING, progress=0.0)])

        async def hear(line: WorkerLine) -> None:
            nonlocal last_sent
            if "trained" in line:
                facts.update(line["trained"])
                await self._write([_step(run, TRAINED, **facts)])
                return
            log.info("training", extra={"run": run.run_id, "model": run.model, **line})
            if time.monotonic() - last_sent > _PROGRESS_EVERY_S:
                last_sent = time.monotonic()
                await self._write([_step(run, TRAINING, progress=line["progress"], reason=line["doing"])])

        end = await self._workers.work(job, hear)
        log.info("ended", extra={"run": run.run_id, "model": run.model, **end})
        reason = end.get("reason", "passed the contract's gates on the rows held back")
        version = end.get("version")
        for e in facts.get("evaluations", []):
            e["version"] = version if e["who"] == "candidate" else e["version"]
        await self._write(ended(known.runs, run, end["end"], {**facts, "version": version, "reason": reason}))

    async def _end_work(self) -> None:
        if self._task is not None and self._working():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._task = None


def ended(runs: Mapping[str, Run], run: Run, state: str, facts: Mapping[str, Any]) -> list[_Record]:
    """The last step of a run, and the alert that it raises or resolves.

    Args:
        runs: all that are known of the model.
        facts: what the step says, among it the ``reason``.
    """
    since = first_of_failing(runs, run)
    records = [_step(run, state, **facts)]
    if state == FAILED:
        records.append(("Alert", failure_of(run, facts["reason"], since or run)))
    elif since is not None:
        records.append(("Alert", failure_of(run, facts["reason"], since, resolved=True)))
    return records


def first_of_failing(runs: Mapping[str, Run], run: Run) -> Run | None:
    """The first of the runs that failed one after the other right before this one; None where the last did not."""
    first = None
    for before in sorted((r for r in runs.values() if r.cut < run.cut), key=lambda r: r.cut, reverse=True):
        if before.state != FAILED:
            break
        first = before
    return first


def best_of(runs: Mapping[str, Run]) -> dict[str, float]:
    """By metric, the best value that a published candidate had on the rows held back for it."""
    best: dict[str, float] = {}
    for run in runs.values():
        for e in run.evaluations if run.state == PUBLISHED else ():
            metric, value = e["metric"], e["value"]
            if e["who"] == "candidate" and value is not None and metric in METRIC:
                better = metric not in best or METRIC[metric].better_by(value, best[metric]) > 0
                best[metric] = value if better else best[metric]
    return best


def _step(run: Run, state: str, **more: Any) -> _Record:
    return "TrainingRun", record_of(run, **{**more, "state": state})


def _end_at_last() -> None:
    """A call to a Kafka that is away can be neither cancelled nor waited for; nothing is lost with it."""
    timer = threading.Timer(_STOP_S, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _transaction(producer: KafkaProducer, records: list[Record]) -> None:
    producer.begin()
    producer.produce(records)
    producer.commit()
