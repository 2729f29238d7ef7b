"""Instances of a service on the exactly-once runner stand still past their session, and are killed, under load.

A stalled process is the dangerous one: it wakes up with messages of partitions that others have worked on since.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.waiting import PATIENCE_S

from tailrace.connection import Connection
from tailrace.local.kafka import LocalKafka
from tailrace.streaming.backends.kafka.clients import end
from tailrace.streaming.backends.kafka.consumer import SESSION_TIMEOUT_MS
from tailrace.streaming.backends.kafka.reading import TopicReader, read_all

LONG = os.environ.get("TAILRACE_CHAOS") == "long"
SEED = int(os.environ.get("TAILRACE_SEED", random.SystemRandom().randrange(2**31)))
RATE = 1_000
SOURCE, TARGET, GROUP = "stalls.requests", "stalls.answers", "stalls"


class Instance:
    """One process, started again whenever it ends by itself or is killed."""

    def __init__(self, name: str, bootstrap: str, log: Path) -> None:
        self._command = [sys.executable, "-m", "tests.support.echo_service", GROUP, name, SOURCE, TARGET]
        self._env = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap}
        self.log = log
        self._log = log.open("w")
        self._ending = False
        self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _start(self) -> None:
        self.process = subprocess.Popen(self._command, stderr=self._log, env=self._env)

    def _keep(self) -> None:
        while not self._ending:
            if self.process.poll() is not None:
                self._start()
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()

    def stall(self, seconds: float) -> None:
        stalled = self.process
        stalled.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        stalled.send_signal(signal.SIGCONT)

    def end(self) -> float:
        """Tells it to end; how long that takes."""
        self._ending = True
        self._keeper.join()
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(30)
        self._log.close()
        return time.monotonic() - began


class Load(threading.Thread):
    """Numbers, at a steady rate, until stopped."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True}
        )
        self._stopping = threading.Event()
        self.sent = 0

    def run(self) -> None:
        began = time.monotonic()
        while not self._stopping.is_set():
            while self.sent < (time.monotonic() - began) * RATE:
                self._producer.produce(SOURCE, b"%d" % self.sent, b"%d" % self.sent)
                self.sent += 1
            self._producer.poll(0.005)
        undelivered = self._producer.flush(60)
        end(self._producer)
        assert undelivered == 0

    def stop(self) -> None:
        self._stopping.set()
        self.join(90)


def test_a_process_that_stood_still_doubles_and_loses_nothing(kafka: LocalKafka, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    connection = Connection(kafka={"bootstrap.servers": kafka.bootstrap}, registry="")
    admin = AdminClient(connection.kafka)
    for created in admin.create_topics([NewTopic(SOURCE, 6), NewTopic(TARGET, 6)]).values():
        created.result()
    instances = [Instance(name, kafka.bootstrap, tmp_path / f"{name}.log") for name in ("0", "1")]
    load = Load(kafka.bootstrap)
    load.start()
    reader = TopicReader(connection, TARGET)
    answers: list[bytes | None] = []

    def answered(count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while len(answers) < count:
            assert time.monotonic() < deadline, f"{len(answers)} answers to {count} requests"
            answers.extend(message.value() for message in reader.poll(0.1))

    answered(1)
    past_session = SESSION_TIMEOUT_MS / 1000 + 2
    for number in range(10 if LONG else 2):
        stalled, other = rng.sample(instances, 2)
        killing = threading.Timer(rng.uniform(0, past_session), other.kill)
        if number % 2:
            killing.start()
        stalled.stall(rng.choice([2.0, past_session]) if LONG else past_session)
        killing.join() if number % 2 else None
        answered(len(answers) + 1)
    load.stop()
    answered(load.sent)
    ends = [instance.end() for instance in instances]
    reader.close()

    logs = "\n".join(f"{instance.log.name}:\n{instance.log.read_text()[-5_000:]}" for instance in instances)
    assert [instance.process.returncode for instance in instances] == [0, 0], logs
    assert max(ends) < 10
    numbers = sorted(int(message.value() or b"") for message in read_all(connection, TARGET))
    assert numbers == list(range(load.sent))
