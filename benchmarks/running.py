"""What is measured from outside: programs in processes of their own, and a Tailrace with one model in service.

The model is the example contract ``credit`` with a logistic regression on simulated loans. What is started here runs
until it is closed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.harness import Broker, Measured
from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection, connect
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.lanes import MANIFESTS, Lane
from tailrace.contracts.records.schemas import request_schema, subject
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.records import ControlRecords
from tailrace.control.apply import apply, plan
from tailrace.control.publish import Publication, publish_package
from tailrace.demo.loans import simulate
from tailrace.local.health import ask
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process
from tailrace.models.package.build import Package, build_package
from tailrace.models.train import frame_of, unfitted
from tailrace.package_data import data_dir
from tailrace.signing.signers import ROLLOUT
from tailrace.signing.trust import make_keys
from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics, lane_topics
from tailrace.templates.table import DEFAULT

ROOT = Path(__file__).resolve().parents[1]
PARTITIONS = 6
SCORERS = "tailrace.scorer"
"""The consumer group of the scorers."""
ENOUGH_S = 120.0

Requests = Sequence[tuple[bytes, bytes]]
"""Keys and values."""


def until(what: str, condition: Callable[[], Any], seconds: float = ENOUGH_S, every_s: float = 0.05) -> None:
    """Waits until the condition holds.

    Raises:
        TimeoutError: it does not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every_s)


class Loop:
    """One or more processes that read ``source`` in one consumer group and write ``target``.

    Attributes:
        cores_busy: how many of the machine's cores were at work in its last run, whoever used them.
    """

    def __init__(self, processes: Sequence[Process], group: str, source: str, target: str) -> None:
        self.processes = processes
        self.group = group
        self.source = source
        self.target = target
        self.cores_busy = 0.0

    def signal(self, number: int) -> None:
        for process in self.processes:
            assert process.pid is not None
            assert process.running(), process.last_words()
            os.kill(process.pid, number)

    def cpu_seconds(self) -> float:
        return sum(_cpu_seconds(process) for process in self.processes)

    def stop(self) -> None:
        for process in self.processes:
            process.stop(10)


def _cpu_seconds(process: Process) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def work_off(kafka: Broker, loop: Loop, requests: Requests) -> Measured:
    """How long a loop that is there already takes for requests that are all in the topic when it may begin, up to
    its commit of the last of them; the CPU seconds are of its own processes.

    It is stopped while the requests are written, so that writing them is not measured. Which of several processes
    has which partitions has to be known before.
    """
    loop.signal(signal.SIGSTOP)
    try:
        kafka.fill(loop.source, (value for _, value in requests), (key for key, _ in requests))
        with _offsets(kafka, loop) as behind:
            before, busy, began = loop.cpu_seconds(), _busy_seconds(), time.perf_counter()
            loop.signal(signal.SIGCONT)
            until(f"{loop.group} has taken everything", lambda: not behind(), every_s=0.005)
            seconds = time.perf_counter() - began
            loop.cores_busy = (_busy_seconds() - busy) / seconds
            return Measured(len(requests), seconds, loop.cpu_seconds() - before)
    finally:
        loop.signal(signal.SIGCONT)


def wait_for_loop(kafka: Broker, loop: Loop, requests: Requests) -> None:
    """Until a loop has joined its group and answers."""
    kafka.fill(loop.source, (value for _, value in requests), (key for key, _ in requests))
    with _offsets(kafka, loop) as behind:

        def answers() -> bool:
            loop.signal(0)  # raises where it has ended
            return not behind()

        until(f"{loop.group} answers", answers)


@contextmanager
def _offsets(kafka: Broker, loop: Loop) -> Iterator[Callable[[], bool]]:
    """A function that says whether the loop has committed less than there is now."""
    consumer = Consumer({**kafka.connection.kafka, "group.id": loop.group, "enable.auto.commit": False})
    partitions = consumer.list_topics(loop.source, timeout=10).topics[loop.source].partitions
    places = [TopicPartition(loop.source, partition) for partition in partitions]
    ends = {place.partition: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}

    def behind() -> bool:
        committed = consumer.committed(places, timeout=10)
        return any(place.offset < ends[place.partition] for place in committed if ends[place.partition])

    try:
        yield behind
    finally:
        consumer.close()


class Running:
    """Tailrace on a benchmark's broker: registry, contract and topics; services as they are asked for.

    Attributes:
        home: the home of all that runs.
        package: a model that may be published again and again.
    """

    def __init__(self, kafka: Broker) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tailrace-benchmark-home-"))
        port = free_port()
        self.connection = Connection(kafka.connection.kafka, f"http://{HOST}:{port}", home=self.home)
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("TAILRACE_")} | {
            "KAFKA_BOOTSTRAP_SERVERS": self.connection.bootstrap,
            "SCHEMA_REGISTRY_URL": self.connection.registry,
            "TAILRACE_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        self._processes: list[Process] = []
        self._health: dict[str, str] = {}
        self._published = False
        self._scorer: Loop | None = None
        try:
            command = [sys.executable, "-m", "tailrace.cli", "run", "registry"]
            self._launch("registry", command, TAILRACE_PORT=str(port))
            until("the registry answers", lambda: ask(self.connection.registry, "/readyz").ok)
            login = connect(self._env, self.home).registry_auth
            self.connection = replace(self.connection, registry_auth=login)
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self._key = make_keys(self.home)
        self.registry = RegistryClient(self.connection.registry, self.connection.registry_auth)
        file = data_dir("contracts", "models") / "credit.yaml"
        self.contract = load_contract(file)
        self.lane = Lane(self.contract.lane)
        lane = lane_topics(self.lane.name, partitions=PARTITIONS)
        ensure_topics(self.connection.kafka, [*control_topics(), *lane])
        contracts = Contracts()
        apply(self.connection, plan([file], contracts), contracts, lambda _: None)
        loans = simulate(rows=3_000, seed=1)
        x, y = frame_of(loans, self.contract), loans[self.contract.target.name].to_numpy()
        self.package: Package = build_package(unfitted(DEFAULT, self.contract), x, y, self.contract)

    def publish(self) -> Publication:
        """The model as its next version."""
        self._published = True
        return publish_package(self.connection, self.package, self._key, self.home)

    def forget_chunks(self) -> None:
        """Empties the cache of what packages consist of: the model of the next publication is of new bytes to all."""
        for folder in (self.home / "cache").glob("*/packages"):
            shutil.rmtree(folder, ignore_errors=True)

    def _first_champion(self) -> None:
        """Puts the published version 1 in service, as the rollout service would."""
        step = {
            "model": self.contract.model,
            "revision": 1,
            "follows": 0,
            "step": "first-champion",
            "version": 1,
            "champion": 1,
            "reason": "",
            "by": "benchmark",
            "source": {"topic": MANIFESTS, "partition": 0, "offset": 0},
        }
        record = ControlRecords.of(self.connection, ROLLOUT).record("Rollout", step)
        producer = Producer({**self.connection.kafka, "log_level": 0})
        producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
        assert producer.flush(30) == 0

    def requests(self, count: int) -> Requests:
        """Requests that pass all checks, keyed by their loans; none lacks a value that would be filled in."""
        loans = simulate(rows=count + count // 20 + 20, seed=2, every_ms=1.0).drop("defaulted")
        topic = self.lane.requests
        schema = request_schema(self.contract)
        schema_id = self.registry.register(subject(topic, self.contract.model, self.lane.name), schema)
        codec = Codec(self.registry)
        rows = loans.drop_nulls().head(count).to_dicts()
        assert len(rows) == count
        return [
            (row["loan_id"].encode(), codec.encode(schema_id, row | {"request_id": row["loan_id"]}))
            for row in rows
        ]

    def start(self, name: str, instance: str | None = None, command: Sequence[str] | None = None) -> Process:
        """Starts a service, by another command where one is given, and waits until it lives."""
        instance, port = instance or name, free_port()
        self._health[instance] = f"http://{HOST}:{port}"
        process = self._launch(
            instance,
            command or [sys.executable, "-m", "tailrace.cli", "run", name],
            TAILRACE_HEALTH_PORT=str(port),
            TAILRACE_INSTANCE=instance,
        )
        until(f"{instance} lives", lambda: _alive(process) and ask(self._health[instance], "/livez").ok)
        return process

    def scorer(self, command: Sequence[str] | None = None) -> Loop:
        """The scorer, ready; where nothing was published before, with version 1 in service."""
        if self._scorer is not None:
            return self._scorer
        if not self._published:
            self.publish()
            self._first_champion()
        process = self.start("scorer", command=command)
        until("the scorer is ready", lambda: ask(self._health["scorer"], "/readyz").ok)
        self._scorer = Loop([process], SCORERS, self.lane.requests, self.lane.predictions)
        return self._scorer

    def roll_out(self, command: Sequence[str] | None = None) -> Loop:
        """The scorer, with version 1 in service because a rollout service, which goes on, has let it in."""
        self.start("rollout")
        self.publish()
        return self.scorer(command)

    def _launch(self, name: str, command: Sequence[str], **env: str) -> Process:
        process = Process(command, self.home / f"{name}.log", self._env | env)
        process.launch()
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in reversed(self._processes):
            process.stop(10)
        shutil.rmtree(self.home, ignore_errors=True)


def _alive(process: Process) -> bool:
    assert process.running(), process.last_words()
    return True


@contextmanager
def running(kafka: Broker) -> Iterator[Running]:
    """A Tailrace for a benchmark; everything that it started is stopped at the end."""
    tailrace = Running(kafka)
    try:
        yield tailrace
    finally:
        tailrace.close()


def launched(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Process:
    """A program of a peer, started."""
    process = Process(command, log, {**os.environ, **(env or {})})
    process.launch()
    return process
