"""What `tailrace up` stands on: started in order, brought back when it dies, gone when its parent is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.waiting import until

from tailrace.access.credentials import APPLICATION, HTTP, KAFKA, OWNER, SERVICES, Credentials
from tailrace.access.home_servers import with_userinfo
from tailrace.avro.registry import RegistryClient
from tailrace.clickhouse.client import ClickHouse
from tailrace.connection import connect
from tailrace.errors import TailraceError
from tailrace.local import supervisor as module
from tailrace.local.environment import program_environment
from tailrace.local.health import ask
from tailrace.local.home import Home
from tailrace.local.keeper import KeptProgram
from tailrace.local.leftovers import created
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process
from tailrace.local.status import status
from tailrace.local.supervisor import Supervisor

ENV = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("KAFKA_BOOTSTRAP", "SCHEMA_REGISTRY_", "CLICKHOUSE_", "TAILRACE_HOME"))
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home in which broker, registry and ClickHouse run; the services have tests of their own."""
    root = tmp_path_factory.mktemp("project")
    made = Home(root / "home")
    made.prepare()
    taken = socket.socket()
    port = free_port()
    taken.bind((HOST, port))
    taken.listen()
    # The last time's port, which somebody else has by now.
    made.write(made.ports, {"registry": port})
    lock = made.lock()
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "SERVICES", ())
    running.append(Supervisor(made, root, said.append, ENV))
    running[0].start()
    yield made
    running[0].stop()
    patch.undo()
    lock.close()
    taken.close()
    assert not made.addresses.exists()
    assert not list((root / "home" / "access").glob("*.address")), (
        "nothing is sent to who has their ports now"
    )


said: list[str] = []
running: list[Supervisor] = []


@pytest.fixture
def supervisor(home: Home) -> Supervisor:
    return running[0]


def _process(home: Home, name: str) -> dict[str, Any]:
    return next(p for p in home.read(home.state)["processes"] if p["name"] == name)


def test_what_was_reached_is_said_and_written(home: Home) -> None:
    assert [line.split()[0] for line in said[:3]] == ["kafka", "registry", "clickhouse"]
    connection = connect(env={}, home=home.root)
    assert connection.bootstrap == _process(home, "kafka")["address"]
    assert ask(connection.registry, "/readyz").ok
    assert connection.clickhouse
    assert ask(connection.clickhouse, "/ping").ok
    now = status(home)
    assert now["ready"]
    assert all(now[name]["healthy"] for name in ("kafka", "registry", "clickhouse"))
    assert (home.root / "keys" / "signing.key").stat().st_mode & 0o077 == 0


def test_a_program_is_let_in_by_what_it_is_given(home: Home) -> None:
    given = program_environment(home, APPLICATION)
    registry = RegistryClient(given["SCHEMA_REGISTRY_URL"], given["SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"])
    assert registry.latest("nobody") is None
    with pytest.raises(TailraceError, match="The user application may not PUT this"):
        registry.set_level("nobody", "NONE")
    with pytest.raises(TailraceError, match=r"refuses with 401.*tailrace env"):
        RegistryClient(given["SCHEMA_REGISTRY_URL"]).latest("nobody")
    clickhouse = ClickHouse(given["CLICKHOUSE_URL"])
    assert clickhouse.database == "tailrace"
    assert clickhouse.query("SELECT 41 + 1").rows == [(42,)]
    for file in home.run.iterdir():
        assert given["SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"].partition(":")[2] not in file.read_text(), file


def test_a_port_that_is_taken_by_now_is_replaced(home: Home) -> None:
    with socket.socket() as probe:
        probe.connect((HOST, _process(home, "registry")["port"]))
    assert json.loads(home.ports.read_text())["registry"] == _process(home, "registry")["port"]


@pytest.mark.parametrize(
    ("name", "path"), [("registry", "/readyz"), ("clickhouse", "/ping"), ("kafka", None)]
)
def test_what_is_killed_comes_back_at_its_address(home: Home, name: str, path: str | None) -> None:
    before = _process(home, name)
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: _process(home, name)["restarts"] == before["restarts"] + 1, f"{name} was started again")
    after = _process(home, name)
    assert after["address"] == before["address"]
    assert after["pid"] != before["pid"]
    until(lambda: status(home)[name]["healthy"], f"{name} answers again")


def _given(home: Home) -> dict[str, str]:
    """The environment of who uses what runs in a home as a cluster of one's own, with a login there."""
    file = Credentials(home.root).path(KAFKA, OWNER)
    login = {"KAFKA_SASL_USERNAME": OWNER, "KAFKA_SASL_PASSWORD_FILE": str(file)}
    return {**home.read(home.addresses), **login}


@pytest.mark.parametrize("name", ["Kafka", "registry", "clickhouse"])
def test_an_address_that_is_given_but_dead_is_said(
    tmp_path: Path, home: Home, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER", 2.0)
    variables = {
        "Kafka": "KAFKA_BOOTSTRAP_SERVERS",
        "registry": "SCHEMA_REGISTRY_URL",
        "clickhouse": "CLICKHOUSE_URL",
    }
    dead = f"{HOST}:{free_port()}"
    given = _given(home) | {variables[name]: dead if name == "Kafka" else f"http://{dead}"}
    mine = Home(tmp_path / "home")
    mine.prepare()
    with pytest.raises(TailraceError, match=f"the {name} .*{dead}.* does not answer"):
        Supervisor(mine, tmp_path, print, ENV | given).start()


def test_what_is_given_is_used_and_left_alone(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Home(tmp_path / "home")
    mine.prepare()
    lock = mine.lock()
    given = {k: v for k, v in _given(home).items() if k != "TAILRACE_LANE_PARTITIONS"}
    services = Credentials(home.root).read(HTTP, SERVICES)
    login = {
        "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": f"{SERVICES}:{services}",
        "CLICKHOUSE_URL": with_userinfo(given["CLICKHOUSE_URL"], f"{SERVICES}:{services}"),
    }
    supervisor = Supervisor(mine, tmp_path, print, ENV | given | login)
    supervisor.start()
    try:
        assert mine.read(mine.addresses) == given
        for name, value in login.items():
            monkeypatch.setenv(name, value)
        now = status(mine)
        for name in ("kafka", "registry", "clickhouse"):
            assert now[name]["healthy"], name
            assert "pid" not in now[name]
    finally:
        supervisor.stop()
        lock.close()
    assert status(home)["kafka"]["healthy"]


def test_a_crash_loop_is_said_with_its_reason_and_what_to_do(home: Home, supervisor: Supervisor) -> None:
    program = "import sys; sys.exit('tailrace: the folders of drift cannot be made: correct its rights')"
    process = Process([sys.executable, "-c", program], home.log("drift"), {})
    kept = KeptProgram("drift", process, process.launch, f"http://{HOST}:{free_port()}")
    supervisor._keeper.keep(kept)
    try:
        drift = until(
            lambda: next(
                (s for s in status(home)["services"] if (s["deaths"] or {}).get("lately", 0) > 2), None
            ),
            "three deaths were counted",
        )
    finally:
        process.command[-1] = "import time; time.sleep(600)"
    assert not drift["healthy"]
    assert drift["deaths"]["times"] == drift["deaths"]["lately"] >= 3
    assert drift["deaths"]["crash_loop"]
    assert drift["deaths"]["why"] == ("exit code 1: the folders of drift cannot be made: correct its rights")
    assert "tailrace logs drift" in drift["deaths"]["remedy"]
    until(process.running, "what stays up is not started again and again")


def test_what_an_earlier_one_left_running_is_ended_in_order_before_a_start(
    tmp_path: Path, home: Home
) -> None:
    mine = Home(tmp_path / "home")
    mine.prepare()
    program = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(print(time.time()))); time.sleep(600)"
    orphans = {}
    for name in ("kafka", "clickhouse", "scorer"):
        orphans[name] = Process([sys.executable, "-uc", program], mine.log(name), {})
        orphans[name].launch()
    time.sleep(0.5)
    another = {"name": "sink", "pid": os.getpid(), "created": 1.0}  # has had this process id, before us
    entries = [{"name": n, "pid": p.pid, "created": created(p.pid)} for n, p in orphans.items()]
    mine.write(mine.state, {"processes": [*entries, another]})
    reports: list[str] = []
    dead = {
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{free_port()}",
        "CLICKHOUSE_URL": f"http://{HOST}:{free_port()}",
    }
    # It does not come to more than that: there is no Kafka to start with.
    with pytest.raises(TailraceError, match="does not answer"):
        Supervisor(mine, tmp_path, reports.append, ENV | dead | {"KAFKA_SASL_USERNAME": ""}).start()
    assert reports[0].endswith("had left running: kafka, clickhouse, scorer")
    assert not any(process.running() for process in orphans.values())
    ends = [float(mine.log(name).read_text()) for name in ("scorer", "clickhouse", "kafka")]
    assert ends == sorted(ends)


@pytest.mark.parametrize("guarded", [True, False], ids=["watchdog", "another watchdog"])
def test_nothing_outlives_a_parent_that_crashed(tmp_path: Path, guarded: bool) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tailrace.local.process import Process; "
        "child = Process([sys.executable, '-c', 'import time; time.sleep(600)'], Path(sys.argv[1]), {}); "
        "child.launch(); from tailrace.local.watchdog import watchdog; dog = watchdog(); "
    )
    if not guarded:
        script += "dog._process.kill(); dog._process.wait(); dog.tend(); "
    script += "print(child.pid, flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not psutil.pid_exists(child), "the child has ended")
