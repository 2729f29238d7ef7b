"""`tailrace up`, `status`, `env`, `logs` and `down`, as a person types them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.project import Project, running_project
from tests.support.waiting import until

from tailrace.avro.registry import RegistryClient
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, control_schema
from tailrace.services import SERVICES

CONTRACT = """\
model: pumps
owner: {team: works}
features:
  pressure: {type: number}
target: {name: failed, type: boolean}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    path = tmp_path_factory.mktemp("up") / "project"
    (path / "contracts" / "models").mkdir(parents=True)
    (path / "contracts" / "models" / "pumps.yaml").write_text(CONTRACT)
    with running_project(path) as made:
        yield made


def _pids(project: Project) -> dict[str, int]:
    status = project.status()
    servers = {name: status[name]["pid"] for name in ("kafka", "registry", "clickhouse")}
    return servers | {one["name"]: one["pid"] for one in status["services"]}


def _in_a_terminal_that_is_closed(project: Project, *arguments: str) -> None:
    """Runs a command with a terminal of its own, which hangs up as soon as the command has returned."""
    command = [sys.executable, "-m", "tailrace.cli", *arguments]
    terminal = f"import pty, sys; sys.exit(pty.spawn({command!r}) >> 8)"
    subprocess.run(
        [sys.executable, "-c", terminal],
        cwd=project.path,
        env=project.env,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )


def test_everything_is_up_when_the_command_returns(project: Project) -> None:
    status = project.status()
    assert status["ready"]
    for name in ("kafka", "registry", "clickhouse"):
        assert status[name]["healthy"], name
        assert status[name]["address"]
    assert [one["name"] for one in status["services"]] == list(SERVICES)
    assert all(one["healthy"] and one["pid"] and one["address"] for one in status["services"])
    [model] = status["models"]
    assert model["model"] == "pumps"
    assert model["champion"] is None
    assert "pumps.predictions" in model["topics"]
    text = project.run("status").stdout
    assert "scorer" in text
    assert "pumps.*" in text


def test_the_schemas_of_control_topics_are_there_before_their_first_record(project: Project) -> None:
    env = project.json("env")
    client = RegistryClient(env["SCHEMA_REGISTRY_URL"], env["SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"])
    for name, topic in CONTROL_RECORDS.items():
        latest = client.latest(f"{topic}-value")
        assert latest is not None, topic
        assert latest.schema == control_schema(name)


def test_who_has_read_everything_lags_behind_by_nothing(project: Project) -> None:
    """Though each partition ends with the marker of a transaction, or with a watermark record."""

    def lags() -> dict[str, tuple[int, bool]]:
        services = project.status()["services"]
        return {s["name"]: (s["lag"], s["lag_counted"]) for s in services if s["lag"] is not None}

    until(lambda: set(lags().values()) == {(0, True)}, lambda: f"a lag of nothing: {lags()}")
    assert lags().keys() >= {"scorer", "joiner", "sink", "trainer"}


def test_a_second_one_in_the_same_home_is_told_of_the_first(project: Project) -> None:
    for arguments in (["up"], ["up", "--detach"]):
        refused = project.run(*arguments, check=False)
        assert refused.returncode == 1
        assert "already runs" in refused.stderr
        assert "tailrace down" in refused.stderr
    assert project.status()["ready"]


def test_a_killed_scorer_is_back_at_once(project: Project) -> None:
    before = project.service("scorer")
    os.kill(before["pid"], signal.SIGKILL)
    began = time.monotonic()
    after = until(
        lambda: (
            (now := project.service("scorer"))["restarts"] > before["restarts"] and now["healthy"] and now
        ),
        "the scorer is back",
    )
    print(f"the scorer was back after {time.monotonic() - began:.1f} s")
    assert after["address"] == before["address"]
    assert after["pid"] != before["pid"]


def test_a_shell_gets_the_addresses(project: Project) -> None:
    addresses = project.json("env")
    shell = f'eval "$({shlex.quote(sys.executable)} -m tailrace.cli env)" && printenv KAFKA_BOOTSTRAP_SERVERS'
    done = subprocess.run(
        ["sh", "-c", shell], cwd=project.path, env=project.env, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == addresses["KAFKA_BOOTSTRAP_SERVERS"] == project.status()["kafka"]["address"]


def test_logs_of_a_service_and_of_none(project: Project) -> None:
    assert '"service": "scorer"' in project.run("logs", "scorer").stdout
    refused = project.run("logs", "scorrer", check=False)
    assert refused.returncode == 2
    assert "scorer" in refused.stderr


def test_when_its_parent_is_killed_nothing_is_left_and_the_next_goes_on_where_it_was(
    project: Project,
) -> None:
    before = project.json("env")
    pids = _pids(project)
    os.kill(int((project.home / "run" / "lock").read_text()), signal.SIGKILL)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids.values()), "all have ended")
    assert "nothing runs" in project.run("status", check=False).stderr
    _in_a_terminal_that_is_closed(project, "up", "--detach")
    assert project.status()["ready"]
    assert project.json("env") == before
    assert [model["contract"] for model in project.status()["models"]] == [1]


def test_what_goes_on_without_its_supervisor_is_seen_and_ended(project: Project) -> None:
    """The supervisor and its watchdog are killed together."""
    pids = _pids(project)
    supervisor = psutil.Process(int((project.home / "run" / "lock").read_text()))
    supervisor.suspend()  # or it would start another watchdog
    [watchdog] = [child for child in supervisor.children() if "watchdog.py" in " ".join(child.cmdline())]
    watchdog.kill()
    supervisor.kill()
    until(lambda: not supervisor.is_running(), "the supervisor has ended")
    status = project.status()
    assert not status["kept"]
    assert {one["name"] for one in status["services"] if one["healthy"]} == set(SERVICES)
    assert all(psutil.pid_exists(pid) for pid in pids.values())
    warning = project.run("status").stderr
    assert "tailrace up --detach" in warning
    assert "tailrace down" in warning
    ended = project.run("down").stderr
    assert "left running" in ended
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    assert "nothing runs" in project.run("status", check=False).stderr
    project.run("up", "--detach")
    assert project.status()["kept"]


def test_down_ends_everything(project: Project) -> None:
    pids = _pids(project)
    project.run("down")
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    stopped = project.run("status", check=False)
    assert stopped.returncode == 1
    assert "tailrace up" in stopped.stderr
    assert project.run("down").returncode == 0


def test_a_contract_with_a_typo_is_said_before_anything_is_started(tmp_path: Path) -> None:
    file = tmp_path / "contracts" / "models" / "pumps.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(CONTRACT.replace("features:", "featurs:"))
    refused = Project(tmp_path).run("up", "--detach", check=False)
    assert refused.returncode == 1
    assert "pumps.yaml:3" in refused.stderr
    assert "featurs" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / ".tailrace").exists()


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / ".tailrace").write_text("a file is in the way")
    refused = Project(tmp_path).run("up", check=False)
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr
    assert "--home" in refused.stderr
