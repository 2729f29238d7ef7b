"""Scorer, shadow scorer and rollout as processes on a broker of their own, with requests of one model."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.support import models
from tests.support.observer import Observer
from tests.support.waiting import until

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection, connect
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import request_schema
from tailrace.contracts.state.contracts import Contracts
from tailrace.control.apply import apply, plan
from tailrace.control.publish import publish_package
from tailrace.local.health import ask as ask_health
from tailrace.local.kafka import LocalKafka
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process
from tailrace.signing.keys import SigningKey
from tailrace.signing.trust import own_key
from tailrace.streaming.backends.kafka.clients import end
from tailrace.streaming.backends.kafka.reading import TopicReader
from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics
from tailrace.testing.signed_records import home_with_keys

LANE = Lane("credit")
POLICY = """
policy:
  - {when: "score < THRESHOLD", do: approve}
  - {do: refuse}
"""
CONTRACT = models.CONTRACT.replace("TARGET", models.TARGETS["binary"]) + POLICY
REQUEST = {"income": 40_000.0, "debt_ratio": 0.5, "age": 40, "purpose": "car"}


@dataclass
class Cluster:
    connection: Connection
    home: Path
    env: dict[str, str]
    contract: str = CONTRACT
    processes: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.observer = Observer(
            self.connection.kafka, self.connection.registry, self.connection.registry_auth
        )
        self.codec = Codec(RegistryClient(self.connection.registry, self.connection.registry_auth))
        self.contracts = Contracts()
        self.sent = 0
        self._answering: list[TopicReader] = []
        self._producer = Producer({**self.connection.kafka, "partitioner": "murmur2_random", "linger.ms": 2})

    def close(self) -> None:
        """Ends its services, then what it has open itself."""
        for process in self.processes.values():
            process.stop(10)
        for reader in self._answering:
            reader.close()
        end(self._producer)

    def run(self, name: str) -> Process:
        self.ports[name] = free_port()
        env = self.env | {"TAILRACE_HEALTH_PORT": str(self.ports[name]), "TAILRACE_INSTANCE": name}
        command = [sys.executable, "-m", "tailrace.cli", "run", name]
        self.processes[name] = Process(command, self.home / f"{name}.log", env)
        self.processes[name].launch()
        return self.processes[name]

    def health(self, name: str, path: str) -> Any:
        return ask_health(f"http://{HOST}:{self.ports[name]}", path)

    def apply(self, threshold: float, more: str = "") -> ModelContract:
        file = self.home / "credit.yaml"
        file.write_text(self.contract.replace("THRESHOLD", str(threshold)) + more)
        apply(self.connection, plan([file], self.contracts), self.contracts, print)
        return load_contract(file)

    def publish(
        self, version: int | None = None, kind: str = "logistic", key: SigningKey | None = None
    ) -> int:
        built = models.package(kind)
        contract = self.contracts.current["credit"].contract
        manifest = built.manifest.model_copy(update={"contract_digest": contract.digest})
        published = publish_package(
            self.connection, type(built)(manifest, built.parts), key or own_key(self.home), self.home
        )
        assert version in (None, published.version)
        return published.version

    def send(self, *requests: dict[str, Any]) -> None:
        """Sends Avro requests, numbered by their request ids."""
        schema = RegistryClient(self.connection.registry, self.connection.registry_auth).register(
            "credit.requests-value", request_schema(self.contracts.current["credit"].contract)
        )
        for request in requests:
            self.sent += 1
            name = f"r{self.sent}"
            self.raw(self.codec.encode(schema, {"request_id": name, **request}), name.encode())
        self._producer.flush(30)

    def raw(self, value: bytes | None, key: bytes | None = None, topic: str = LANE.requests) -> None:
        self._producer.produce(topic, value, key)
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def events(self, topic: str = LANE.predictions) -> list[dict[str, Any]]:
        """The predictions as the observer decodes them, in the order of their requests by partition."""
        seen = self.observer.read(topic)
        found = [self.observer.decode(s.value) for s in seen if s.value is not None]
        return sorted(found, key=lambda e: (e["source"]["partition"], e["source"]["offset"]))

    def answering(self) -> Callable[[], list[dict[str, Any]]]:
        """While requests go on: a function that gives the predictions that came since its last call."""
        reader = TopicReader(self.connection, LANE.predictions, from_end=True)
        self._answering.append(reader)
        return lambda: [self.observer.decode(m.value()) for m in reader.poll(0.1) if m.value() is not None]

    def alerts(self) -> list[dict[str, Any]]:
        values = [seen.value for seen in self.observer.read(lanes.ALERTS)]
        return [self.observer.decode(value) for value in values if value and value[0] == 0]


class Traffic(threading.Thread):
    """Sends requests at a steady pace until it is told to stop."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.stopping = threading.Event()
        self.count = 0

    def run(self) -> None:
        while not self.stopping.is_set():
            self.cluster.send(*[REQUEST | {"income": float(i)} for i in range(5)])
            self.count += 5
            time.sleep(0.02)

    def __enter__(self) -> Traffic:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.join()


@contextmanager
def broker_with_registry(folder: Path, **settings: str) -> Iterator[tuple[Connection, Path, dict[str, str]]]:
    """A broker and a registry of the test's own: how they are reached, a home, and with what services are started."""
    broker = LocalKafka(folder / "kafka")
    broker.start()
    home = folder / "home"
    home.mkdir()
    port = free_port()
    registry = f"http://{HOST}:{port}"
    env = {k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")} | {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
        "SCHEMA_REGISTRY_URL": registry,
        "TAILRACE_HOME": str(home),
        **settings,
    }
    command = [sys.executable, "-m", "tailrace.cli", "run", "registry"]
    server = Process(command, home / "registry.log", env | {"TAILRACE_PORT": str(port)})
    server.launch()
    try:
        until(lambda: ask_health(registry, "/readyz").ok, "the registry answers")
        home_with_keys(home)
        connection = connect(env, home)
        ensure_topics(connection.kafka, control_topics())
        yield connection, home, env
    finally:
        server.stop(10)
        broker.stop()


@contextmanager
def running_cluster(folder: Path, *services: str, more: str = "", **settings: str) -> Iterator[Cluster]:
    """A broker and a registry, the contract with ``more`` of it applied, and these services under these settings."""
    with broker_with_registry(folder, **settings) as (connection, home, env):
        cluster = Cluster(connection, home, env, CONTRACT + more)
        with closing(cluster):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("TAILRACE_LANE_PARTITIONS", "3")
                cluster.apply(0.5)
            for name in services:
                cluster.run(name)
            yield cluster
