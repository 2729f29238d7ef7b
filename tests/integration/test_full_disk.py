"""A home whose disk is full for a while: what dies is said, comes back by itself, and nothing is lost or done twice."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from tests.support.simulation import LONG
from tests.support.waiting import until

from tailrace.connection import Connection, connect
from tailrace.errors import TailraceError, Unavailable
from tailrace.local import keeper as keeper_module
from tailrace.local import status as status_module
from tailrace.local import supervisor as supervisor_module
from tailrace.local.home import Home
from tailrace.local.process import Process
from tailrace.local.room import Shortage
from tailrace.local.status import status
from tailrace.local.supervisor import Supervisor
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.kafka.clients import sending
from tailrace.streaming.backends.kafka.reading import read_all

CONTRACT = """\
model: pumps
owner: {team: works}
features:
  pressure: {type: number}
target: {name: failed, type: boolean}
"""
SIZE_MIB = 80
FULL_S = 20.0 if LONG else 8.0
ENV = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("KAFKA_BOOTSTRAP", "SCHEMA_REGISTRY_", "CLICKHOUSE_", "TAILRACE_HOME"))
}


class Mounted:
    """A file system of its own, in memory, which is really full when the test fills it."""

    how = "a tmpfs"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, home: Home) -> None:
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(65_536))
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1))

    def free(self) -> None:
        self._ballast.unlink()


class Injected:
    """Where nothing may be mounted: the broker is killed, and whoever looks or writes is told that the disk is full."""

    how = "an injected error (nothing may be mounted here)"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._patch = pytest.MonkeyPatch()

    def fill(self, home: Home) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        short = [Shortage("disk", str(self.folder), 0, 1, "the file system is full")]
        self._patch.setattr(keeper_module, "full_disks", lambda _: short)
        self._patch.setattr(status_module, "shortages", lambda *_: short)
        self._patch.setattr(Home, "write", full)
        self._patch.setattr(Process, "launch", full)
        os.kill(_process(home, "kafka")["pid"], signal.SIGKILL)

    def free(self) -> None:
        self._patch.undo()


@contextmanager
def _small_disk(folder: Path) -> Iterator[Mounted | Injected]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tailrace-test", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        yield Injected(folder)
        return
    try:
        yield Mounted(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Sender(threading.Thread):
    """Sends requests that nobody can read, 50 a second, each of which is answered by one dead letter."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(daemon=True)
        self.sent: list[tuple[int, int, float]] = []
        self.refused: list[KafkaError] = []
        self.stop = threading.Event()
        self._options = {**connection.kafka, "enable.idempotence": True, "log_level": 0}

    def run(self) -> None:
        number = 0
        with sending(self._options, patience_s=300) as producer:
            while not self.stop.is_set():
                producer.produce("pumps.requests", b"no request", b"%d" % number, on_delivery=self._delivered)
                producer.poll(0.02)
                number += 1
            assert producer.flush(120) == 0

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self.refused.append(error)
        else:
            self.sent.append((message.partition(), message.offset(), message.timestamp()[1] / 1000))


def _process(home: Home, name: str) -> dict[str, Any]:
    return next(p for p in home.read(home.state)["processes"] if p["name"] == name)


def _answers(connection: Connection) -> list[tuple[int, int, float]]:
    """Partition and offset of each request that has an answer, and when that was written; none while Kafka is away."""
    try:
        letters = list(read_all(connection, "pumps.dead-letters"))
    except (TailraceError, Unavailable, KafkaException):
        return []
    sources = [(dead_letters.parse(letter).source, letter.timestamp()[1] / 1000) for letter in letters]
    return [(source.partition, source.offset, at) for source, at in sources]


def _used_mib(folder: Path) -> float:
    usage = os.statvfs(folder)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize / (1 << 20)


@pytest.mark.timeout(400)
def test_a_full_disk_stops_nothing_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "contracts" / "models").mkdir(parents=True)
    (tmp_path / "contracts" / "models" / "pumps.yaml").write_text(CONTRACT)
    monkeypatch.setattr(supervisor_module, "SERVICES", ("scorer",))
    with _small_disk(tmp_path / "disk") as disk:
        home = Home(disk.folder / "home")
        home.prepare()
        lock = home.lock()
        supervisor = Supervisor(home, tmp_path, print, ENV)
        supervisor.start()
        try:
            _hurt(home, disk)
        finally:
            supervisor.stop()
            lock.close()


def _hurt(home: Home, disk: Mounted | Injected) -> None:
    connection = connect(env={}, home=home.root)
    sender = Sender(connection)
    sender.start()
    until(lambda: len(_answers(connection)) > 100, "requests are answered")
    print(f"\n{disk.how}: {_used_mib(disk.folder):.0f} MiB are used before it is filled")
    before = status(home)
    assert not before["short"]
    disk.fill(home)
    filled = time.time()
    now = until(lambda: (s := status(home))["short"] and not s["kafka"]["healthy"] and s, "status says it")
    print(f"status after {time.time() - filled:.1f} s: {now['short'][0]['text']}")
    assert now["short"][0]["kind"] == "disk"
    assert now["short"][0]["missing"] > 0
    time.sleep(max(0.0, filled + FULL_S - time.time()))
    disk.free()
    freed = time.time()
    until(lambda: any(at > freed for *_, at in sender.sent), "Kafka takes requests again")
    until(lambda: (s := status(home)) and s["kafka"]["healthy"] and not s["short"], "status says so")
    first = next(at for *_, at in sender.sent if at > freed)
    until(lambda: any(at > first for *_, at in _answers(connection)), "requests are answered again")
    sender.stop.set()
    sender.join()
    wanted = {(partition, offset) for partition, offset, _ in sender.sent}
    until(lambda: wanted <= {tuple(a[:2]) for a in _answers(connection)}, "all requests are answered")
    answers = _answers(connection)
    counts = Counter(answer[:2] for answer in answers)
    recovery = min(at for *_, at in answers if at > freed) - freed
    after = status(home)
    deaths = {
        name: (after[name]["deaths"] or {}).get("times", 0) for name in ("kafka", "registry", "clickhouse")
    }
    deaths["scorer"] = (after["services"][0]["deaths"] or {}).get("times", 0)
    print(
        f"{len(wanted)} requests, deaths {deaths}, first answer {recovery:.1f} s after there was room again"
    )
    assert not sender.refused
    assert wanted - counts.keys() == set(), "lost"
    assert {source for source, times in counts.items() if times > 1} == set(), "twice"
    assert deaths["kafka"] >= 1, "the disk was full for the broker, too"
    print(f"kafka: {after['kafka']['deaths']['why']}. {after['kafka']['deaths']['remedy']}")
    until(lambda: all(status(home)[n]["healthy"] for n in ("registry", "clickhouse")), "all is well")
