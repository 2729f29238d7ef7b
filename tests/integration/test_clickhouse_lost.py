"""Tables of ClickHouse that are lost or damaged are made again, said, and filled in from the topics: each row once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from tests.support.clickhouse_walls import amend
from tests.support.environment import environment
from tests.support.lane import HandmadeLane
from tests.support.observer import Observer
from tests.support.stored import references
from tests.support.waiting import until

from tailrace.access.credentials import HTTP, SERVICES, Credentials
from tailrace.clickhouse.client import ClickHouse
from tailrace.clickhouse.history import lacking
from tailrace.connection import Connection
from tailrace.local.health import ask
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process
from tailrace.streaming.records import Record
from tailrace.testing.signed_records import home_with_keys

RECORDS = 1_200


class Project:
    """A sink, a ClickHouse of its own, and a lane on the shared broker."""

    def __init__(self, stack: Connection, folder: Path) -> None:
        self.stack = stack
        self.lane = HandmadeLane(stack, f"t{uuid.uuid4().hex[:8]}")
        self.sent = 0
        self.home, self.port = folder / "clickhouse", free_port()
        self.home.mkdir()
        token = Credentials(self.home).make(HTTP, SERVICES)
        self.url = f"http://{SERVICES}:{token}@{HOST}:{self.port}/lost"
        self.env = os.environ | {
            **environment(stack),
            "CLICKHOUSE_URL": self.url,
            "TAILRACE_HOME": str(home_with_keys(folder)),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        self.clickhouse = ClickHouse(self.url, timeout=10)
        self.processes: dict[str, Process] = {}
        self.folder = folder

    @property
    def requests(self) -> str:
        return f"{self.lane.model}_requests"

    def send(self, count: int) -> None:
        """Requests, some of which nobody can read."""
        records = [self.lane.request(self.sent + n) for n in range(count)]
        records += [Record(self.lane.lane.requests, b"\x05?", b"k%d" % n) for n in range(count // 20)]
        self.lane.write(records)
        self.sent += count

    def start(self, name: str) -> Process:
        if name == "clickhouse":
            command = ["run", "clickhouse"]
            env = self.env | {"TAILRACE_HOME": str(self.home), "TAILRACE_PORT": str(self.port)}
        else:
            command, env = ["run", "sink"], self.env
        process = Process([sys.executable, "-m", "tailrace.cli", *command], self.folder / f"{name}.log", env)
        process.launch()
        self.processes[name] = process
        if name == "clickhouse":
            until(lambda: ask(f"http://{HOST}:{self.port}", "/ping").ok or not process.running())
        return process

    def events(self) -> set[tuple[str, int, int]]:
        """What an independent consumer finds."""
        observer = Observer(self.stack.kafka, self.stack.registry, self.stack.registry_auth)
        return {record.at for record in observer.read(self.lane.lane.requests)}

    def rows(self) -> list[tuple[str, int, int]]:
        return references(self.clickhouse, self.lane.lane.requests)

    def wait_until_stored(self) -> None:
        events = self.events()
        until(
            lambda: set(self.rows()) >= events,
            lambda: self.processes["sink"].last_words(),
            ignoring=(Exception,),
        )

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tailrace.cli", *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def rebuild(self, table: str) -> dict[str, Any]:
        done = self.command("rebuild", table, "--json")
        assert done.returncode == 0, done.stderr
        (report,) = json.loads(done.stdout)
        return dict(report)

    def check(self) -> None:
        """A row for each record, each once."""
        self.wait_until_stored()
        rows = self.rows()
        assert len(rows) == len(set(rows))
        assert set(rows) == self.events()


@pytest.fixture(scope="module")
def project(stack: Connection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(stack, tmp_path_factory.mktemp("lost"))
    project.start("clickhouse")
    project.start("sink")
    project.send(RECORDS)
    project.check()
    yield project
    for process in project.processes.values():
        process.stop(10)


def test_a_table_dropped_under_a_running_sink(project: Project) -> None:
    project.processes["clickhouse"].stop(10)
    amend(project.home, f"DROP TABLE lost.{project.requests}", "DROP TABLE lost.unreadable")
    project.start("clickhouse")
    before = time.monotonic()
    project.send(100)  # so that the sink meets it
    until(lambda: len(project.rows()) >= 100, project.processes["sink"].last_words, ignoring=(Exception,))
    print(f"made again {time.monotonic() - before:.1f} s after the next record")
    assert set(lacking(project.clickhouse)) >= {project.requests, "unreadable"}
    # The sink goes on while what is missing is filled in.
    project.send(300)
    report = project.rebuild(project.requests)
    assert report["filled"][project.requests] >= RECORDS
    project.check()
    assert project.requests not in lacking(project.clickhouse)
    assert project.rebuild(project.requests)["filled"].get(project.requests, 0) == 0
    project.check()


def test_the_whole_folder_removed_with_the_server_stopped(project: Project) -> None:
    project.processes["clickhouse"].stop(10)
    shutil.rmtree(project.home / "data" / "clickhouse")
    project.start("clickhouse")
    project.send(50)
    until(lambda: len(project.rows()) >= 50, project.processes["sink"].last_words, ignoring=(Exception,))
    lacks = lacking(project.clickhouse)
    assert set(lacks) >= {project.requests, "contracts", "rollouts", "unreadable"}
    report = project.rebuild(project.requests)
    assert report["filled"][project.requests] >= RECORDS
    assert report["filled"]["unreadable"] >= RECORDS // 20
    project.check()
    manifests = project.rebuild("manifests")
    assert manifests["compacted"] == ["tailrace.model-manifests"]
    assert manifests["filled"]["manifests"] >= 1


def test_the_folder_removed_under_the_running_server(project: Project) -> None:
    server = project.processes["clickhouse"]
    shutil.rmtree(project.home / "data" / "clickhouse")
    assert server.wait(60) == 1
    assert "was removed while ClickHouse had it open" in server.last_words()
    project.start("clickhouse")
    project.send(20)
    until(lambda: len(project.rows()) >= 20, project.processes["sink"].last_words, ignoring=(Exception,))
    project.rebuild(project.requests)
    project.check()


def parts(project: Project) -> list[Path]:
    """The files of the largest part of the requests' table, once nothing is being merged."""
    merges = f"SELECT count() FROM system.merges WHERE table = '{project.requests}'"
    until(lambda: project.clickhouse.query(merges).rows == [(0,)])
    sql = (
        f"SELECT path FROM system.parts WHERE table = '{project.requests}' AND active "
        "ORDER BY rows DESC LIMIT 1"
    )
    ((folder,),) = project.clickhouse.query(sql).rows
    return sorted(Path(folder).glob("*.bin"))


@pytest.mark.parametrize("is_running", [True, False])
def test_a_damaged_file_of_a_part(project: Project, is_running: bool) -> None:
    file = parts(project)[0]
    if not is_running:
        project.processes["clickhouse"].stop(10)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(byte ^ 0xFF for byte in data[middle : middle + 200])
    file.write_bytes(data if is_running else data[:middle])
    if not is_running:
        project.start("clickhouse")
        assert "damaged" in lacking(project.clickhouse)[project.requests]
    report = project.rebuild(project.requests)
    assert bool(report["damaged_parts"]) == is_running
    project.check()
    assert project.requests not in lacking(project.clickhouse)


def test_a_damaged_description_of_a_table(project: Project) -> None:
    project.processes["clickhouse"].stop(10)
    (description,) = (project.home / "data" / "clickhouse" / "engine").glob(f"**/{project.requests}.sql")
    description.write_bytes(b"\0" * 100)
    process = project.start("clickhouse")
    assert process.wait(60) == 1
    assert f"the description of {project.requests} is damaged" in process.last_words()
    project.start("clickhouse")
    assert project.clickhouse.query("SELECT count() >= 1 FROM unreadable").rows == [(1,)]  # others are whole
    project.rebuild(project.requests)
    project.check()


def test_what_topics_hold_no_longer_is_named(project: Project) -> None:
    topic, written = project.lane.lane.requests, project.events()
    with AdminClient(dict(project.stack.kafka)) as admin:
        ends = {at[1]: at[2] for at in sorted(written)}
        cut = {partition: end // 2 for partition, end in ends.items()}
        for answer in admin.delete_records([Place(topic, p, offset) for p, offset in cut.items()]).values():
            answer.result()
    kept = [at for at in project.rows() if at[2] < cut[at[1]]]
    report = project.rebuild(project.requests)
    gone = {stretch["partition"]: stretch for stretch in report["gone"]}
    assert {p: (s["from"], s["to"]) for p, s in gone.items()} == {p: (0, cut[p] - 1) for p in cut}
    assert sum(stretch["rows_kept"] for stretch in gone.values()) <= len(kept)
    project.processes["clickhouse"].stop(10)
    amend(project.home, f"DROP TABLE lost.{project.requests}")
    project.start("clickhouse")
    done = project.command("rebuild", project.requests)
    assert done.returncode == 0, done.stderr
    assert (
        f"{topic}/0 holds offsets 0 to {cut[0] - 1} no longer: {project.requests} has 0 rows" in done.stderr
    )
    assert sorted(project.rows()) == sorted(at for at in written if at[2] >= cut[at[1]])


def test_a_table_that_nobody_knows(project: Project) -> None:
    done = project.command("rebuild", "nonsense")
    assert done.returncode == 2
    assert "no topic is stored in a table 'nonsense'" in done.stderr
    assert project.requests in done.stderr
    assert done.stdout == ""
