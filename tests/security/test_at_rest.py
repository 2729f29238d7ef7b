"""What lies on the disk: no password of an address is in it, or shown to anybody."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psutil
import pytest
from tests.support.project import Project
from tests.support.waiting import until

from tailrace.access.home_servers import login, with_userinfo
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.errors import Unavailable, UsageError
from tailrace.local.home import Home
from tailrace.local.ports import free_port

SECRETS = {"CLICKHOUSE_URL": "Blackbird-at-dawn", "SCHEMA_REGISTRY_URL": "Nightingale-at-dusk"}


def _supervisor(project: Project) -> int:
    pid = Home(project.home).holder()
    assert pid is not None
    return pid


def _waiting(project: Project, service: str) -> str | None:
    (status,) = (each for each in project.json("status")["services"] if each["name"] == service)
    assert status["healthy"]
    return str(status["waiting"]) if status["waiting"] else None


def assert_no_secret(text: str, *more: str) -> None:
    for secret in (*SECRETS.values(), *more):
        assert secret not in text, text


def test_passwords_of_addresses_are_in_no_file_argument_or_message(stack: Connection, tmp_path: Path) -> None:
    user = login(stack.clickhouse_auth)
    assert stack.clickhouse
    assert user
    token = user.partition(":")[2]
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": f"PLAINTEXT://{stack.bootstrap}",
        "SCHEMA_REGISTRY_URL": with_userinfo(stack.registry, user),
        "CLICKHOUSE_URL": with_userinfo(stack.clickhouse, user),
    }
    project = Project(tmp_path)
    project.env |= given
    runs: list[subprocess.CompletedProcess[str]] = []
    try:
        runs.append(project.run("up", "--detach"))
        runs += [
            project.run(*command, check=False) for command in (["env"], ["status"], ["status", "--json"])
        ]
        assert project.json("query", "SELECT 1 AS one") == [{"one": 1}]
        status = project.json("status")
        assert status["registry"]["healthy"]
        assert status["models"] == []
        variables = project.json("env")
        assert not {"SCHEMA_REGISTRY_URL", "CLICKHOUSE_URL"} & variables.keys()
        assert variables["KAFKA_BOOTSTRAP_SERVERS"] == stack.bootstrap
        assert variables["KAFKA_SECURITY_PROTOCOL"] == "PLAINTEXT"
        until(lambda: _waiting(project, "trainer") is None, "the trainer, whose client is another")
        runs.append(Project(tmp_path).run("status", "--json", check=False))
        without = json.loads(runs[-1].stdout)["registry"]
        assert not without["healthy"], "a shell without the credentials cannot know"
        assert "SCHEMA_REGISTRY_URL" in without["waiting"]
        pids = [*map(project.pid, ("scorer", "sink")), _supervisor(project)]
        for process in {*map(psutil.Process, pids), *psutil.Process(pids[-1]).children(recursive=True)}:
            assert_no_secret(" ".join(process.cmdline()), token)
        assert token in psutil.Process(pids[0]).environ()["CLICKHOUSE_URL"]
    finally:
        runs.append(project.run("down", check=False))
    for done in runs:
        assert_no_secret(done.stdout + done.stderr, token)
    files = [path for path in project.home.rglob("*") if path.is_file()]
    assert {file.name for file in files} >= {"scorer.log", "up.log"}
    for file in files:
        assert_no_secret(file.read_text(errors="replace"), token)


@pytest.mark.parametrize("command", [["models"], ["verify"], ["query", "SELECT 1"], ["up"]])
def test_a_password_among_kafka_s_servers_is_refused_and_not_shown(
    tmp_path: Path, command: list[str]
) -> None:
    project = Project(tmp_path)
    project.env |= {
        "KAFKA_BOOTSTRAP_SERVERS": "SASL_SSL://me:Nightjar-at-noon@127.0.0.1:1",
        "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
        "CLICKHOUSE_URL": "http://127.0.0.1:1",
    }
    failed = project.run(*command, check=False)
    assert failed.returncode == 2, failed.stderr
    assert "KAFKA_SASL_PASSWORD" in failed.stderr
    assert_no_secret(failed.stdout + failed.stderr, "Nightjar")


@pytest.mark.parametrize("name", ["SCHEMA_REGISTRY_URL", "CLICKHOUSE_URL"])
@pytest.mark.parametrize(
    "url", ["me:SECRET@127.0.0.1:1", "http://me:SECRET@127.0.0.1:port", "http://me:SECRET@"]
)
def test_up_refuses_what_is_no_address_before_it_starts_anything(tmp_path: Path, name: str, url: str) -> None:
    project = Project(tmp_path)
    project.env[name] = url.replace("SECRET", SECRETS[name])
    failed = project.run("up", check=False)
    assert failed.returncode == 2, failed.stderr
    assert name in failed.stderr
    assert_no_secret(failed.stdout + failed.stderr)
    assert not Home(project.home).processes()


NO_ANSWER = [
    "http://me:SECRET@127.0.0.1:PORT",
    "me:SECRET@127.0.0.1:PORT",
    "http://me:a/SECRET@127.0.0.1:PORT",
]


def _at_a_closed_port(url: str, secret: str) -> str:
    return url.replace("SECRET", secret).replace("PORT", str(free_port()))


@pytest.mark.parametrize("url", NO_ANSWER)
def test_a_clickhouse_that_does_not_answer_is_named_without_its_password(tmp_path: Path, url: str) -> None:
    project = Project(tmp_path)
    project.env |= {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
        "CLICKHOUSE_URL": _at_a_closed_port(url, SECRETS["CLICKHOUSE_URL"]),
    }
    failed = project.run("query", "SELECT 1", check=False)
    assert failed.returncode != 0
    assert "ClickHouse" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert_no_secret(failed.stdout + failed.stderr)


@pytest.mark.parametrize("url", NO_ANSWER)
def test_a_registry_that_does_not_answer_is_named_without_its_password(url: str) -> None:
    with pytest.raises((Unavailable, UsageError)) as failed:
        RegistryClient(_at_a_closed_port(url, SECRETS["SCHEMA_REGISTRY_URL"])).latest("subject")
    assert "registry" in str(failed.value)
    assert_no_secret(f"{failed.value} {failed.value.__cause__}")
