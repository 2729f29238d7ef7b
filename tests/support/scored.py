"""A running project whose scorers are hurt under load: what hurts them, what goes on meanwhile, and the account."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.support.account import Account, account
from tests.support.observer import Observer
from tests.support.project import Project, running_project
from tests.support.proxied_kafka import ProxiedKafka

from tailrace.client import Client
from tailrace.connection import connect
from tailrace.control.commands import ask
from tailrace.demo.loans import simulate
from tailrace.local.process import Process
from tailrace.package_data import data_dir
from tailrace.testing.signed_records import signed_at

MODEL = LANE = "credit"
SCORER, GROUP = "scorer", "tailrace.scorer"
PARTITIONS = 6
RATE = 300


class Load(threading.Thread):
    """Sends loans at a steady rate until stopped."""

    def __init__(self, project: Project) -> None:
        super().__init__(daemon=True)
        connection = connect({}, project.home)
        self._client = Client(replace(connection, kafka={**connection.kafka, "log_level": "0"}))
        self._stopping = threading.Event()
        self.sent = 0
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            rows = simulate(rows=20_000, seed=7).drop("defaulted").to_dicts()
            began = time.monotonic()
            with self._client as client:
                while not self._stopping.is_set():
                    for _ in range(int((time.monotonic() - began) * RATE) - self.sent):
                        client.send(MODEL, rows[self.sent % len(rows)])
                        self.sent += 1
                    time.sleep(0.005)
                client.flush(60)
        except BaseException as error:
            self._error = error

    def stop(self) -> None:
        self._stopping.set()
        self.join(90)
        assert self._error is None, self._error


class Scorer(threading.Thread):
    """One more scorer in the group beside the project's own, started again when it ends until it is told to end."""

    def __init__(self, project: Project, name: str, **env: str) -> None:
        super().__init__(daemon=True)
        self.transactional_id = f"{GROUP}.{name}"
        own = {"TAILRACE_HOME": str(project.home), "TAILRACE_INSTANCE": name, "TAILRACE_HEALTH_PORT": "0"}
        self._process = Process(
            project.program(SCORER), project.home / "run" / f"{name}.log", project.env | own | env
        )
        self._ending = False
        self._process.launch()
        self.start()

    def run(self) -> None:
        while self._process.wait() is not None and not self._ending:
            self._process.launch()

    def send(self, number: signal.Signals) -> None:
        """A signal; SIGTERM and SIGKILL end it for good, and wait for it."""
        self._ending = self._ending or number in (signal.SIGTERM, signal.SIGKILL)
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
        if self._ending:
            self.join(30)
            assert not self.is_alive(), "it does not end"


class Scored:
    """A project with the model ``credit`` in two versions, the first of which is champion. Nothing moves by itself.

    Attributes:
        kafka: the broker, in the test's hands: the project was given it.
    """

    def __init__(self, project: Project, kafka: ProxiedKafka) -> None:
        self.project, self.kafka = project, kafka
        self.connection = connect({}, project.home)
        self.observer = Observer(
            self.connection.kafka, self.connection.registry, self.connection.registry_auth
        )
        self.logs = kafka.data / "logs"
        self._others: list[Scorer] = []
        self._group = Consumer({**self.connection.kafka, "group.id": GROUP, "log_level": 0})

    def close(self) -> None:
        self._group.close()

    # --- looking

    def ends(self) -> dict[tuple[str, int], int]:
        """By topic and partition of the lane, where what is written from now on begins."""
        topics = [f"{LANE}.{name}" for name in ("requests", "predictions", "dead-letters")]
        return {place: end for topic in topics for place, end in self.observer.ends(topic).items()}

    def caught_up(self) -> None:
        """Until what has been asked up to now is answered."""
        asked: dict[tuple[str, int], int] = {}
        self.project.wait(lambda: asked.update(self.observer.ends(f"{LANE}.requests")) or True, "the broker")

        def answered() -> bool:
            places = self._group.committed([TopicPartition(*place) for place in asked], timeout=5)
            return all(place.offset >= asked[place.topic, place.partition] for place in places)

        self.project.wait(answered, "the answers")

    def members(self, count: int) -> None:
        """Until so many scorers share the partitions."""
        # A new client: one that has seen the broker die may go on asking for what was before.
        admin = AdminClient({**self.connection.kafka, "log_level": 0})

        def shared() -> bool:
            members = admin.describe_consumer_groups([GROUP], request_timeout=5)[GROUP].result(10).members
            owned = [len(member.assignment.topic_partitions) for member in members]
            return len(owned) == count and min(owned) > 0 and sum(owned) == PARTITIONS

        self.project.wait(shared, f"{count} scorers that share the partitions")

    def account(self, since: dict[tuple[str, int], int]) -> Account:
        return account(self.observer, self.logs, GROUP, LANE, since)

    # --- hurting

    def kill(self, name: str) -> float:
        """SIGKILL, wherever in its life it is; when, as ``time.time()`` says."""
        while True:
            moment = time.time()
            try:
                os.kill(self.project.pid(name), signal.SIGKILL)
                return moment
            except ProcessLookupError:  # its successor is not known yet
                time.sleep(0.02)

    def scorer(self, name: str, **env: str) -> Scorer:
        """One more scorer, until it is told to end, or `alone`."""
        self._others.append(Scorer(self.project, name, **env))
        return self._others[-1]

    def alone(self) -> None:
        """Ends the scorers beside the project's own that are still there."""
        while self._others:
            if (other := self._others.pop()).is_alive():
                other.send(signal.SIGKILL)

    # --- swapping

    def promote(self, version: int) -> None:
        self._ask("promote", version)

    def rollback(self) -> None:
        self._ask("rollback")

    def freeze(self) -> None:
        self._ask("freeze")

    def _ask(self, command: str, version: int | None = None) -> None:
        answer = ask(self.connection, self.project.home, command, MODEL, version, "chaos")
        assert answer.refusal is None, answer.refusal

    def rollout(self) -> dict[str, Any]:
        """The step in force. Nobody but us asks for steps, so the last one is."""
        steps = sorted(self.observer.read("tailrace.rollouts"), key=lambda record: record.at)
        return dict(self.observer.decode(steps[-1].value or b""))

    def canary(self, version: int, share: float) -> None:
        """What the rollout service writes when a version has earned it, which would take labels."""
        before = self.rollout()
        revision, now = before["revision"], before["canary"]
        step = before | {
            "revision": revision + 1,
            "follows": revision,
            "step": "canary",
            "version": version,
            "canary": {
                "version": version,
                "share": share,
                "salt": now["salt"] if now else f"salt {revision}",
                "step": now["step"] + 1 if now else 1,
            },
            "command_id": None,
        }
        record = signed_at(self.connection, "Rollout", step)
        producer = Producer({**self.connection.kafka, "enable.idempotence": True})
        producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
        assert producer.flush(30) == 0


@contextmanager
def scored_project(path: Path) -> Iterator[Scored]:
    kafka = ProxiedKafka(path / "kafka")
    kafka.proxy.start()
    kafka.start()
    try:
        models = path / "contracts" / "models"
        models.mkdir(parents=True)
        models.joinpath("credit.yaml").write_bytes(
            data_dir("contracts", "models", "credit.yaml").read_bytes()
        )
        simulate(rows=2_000, seed=1).write_csv(path / "loans.csv")
        given = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "TAILRACE_LANE_PARTITIONS": str(PARTITIONS)}
        with running_project(path, **given) as project:
            for condition in ("TRUE", "debt_ratio >= 0.1"):
                project.run("train", MODEL, "--data", "loans.csv", "--where", condition)
            project.wait_for_champion(MODEL, 1)
            scored = Scored(project, kafka)
            project.wait(lambda: scored.rollout()["shadow"] == [2], "version 2 in shadow")
            scored.freeze()
            with closing(scored):
                yield scored
    finally:
        kafka.stop()
        kafka.proxy.stop()
