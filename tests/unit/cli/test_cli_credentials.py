"""``tailrace env`` and ``tailrace credentials``: who is given what, and how it is made anew."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tailrace.access.credentials import APPLICATION, HTTP, OPS, SERVICES, Credentials
from tailrace.access.home_servers import CLICKHOUSE, REGISTRY, open_door
from tailrace.cli.app import app
from tailrace.errors import TailraceError

ADDRESSES = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "SCHEMA_REGISTRY_URL": "http://127.0.0.1:2",
    "CLICKHOUSE_URL": "http://127.0.0.1:3",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which all of this runs."""
    monkeypatch.setenv("TAILRACE_HOME", str(tmp_path))
    open_door(tmp_path, REGISTRY, ADDRESSES["SCHEMA_REGISTRY_URL"])
    open_door(tmp_path, CLICKHOUSE, ADDRESSES["CLICKHOUSE_URL"])
    write_addresses(tmp_path, ADDRESSES)
    return tmp_path


def write_addresses(home: Path, addresses: dict[str, str]) -> None:
    (home / "run").mkdir(exist_ok=True)
    (home / "run" / "addresses.json").write_text(json.dumps(addresses))


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("user", [APPLICATION, OPS])
def test_programs_are_given_what_lets_them_in(home: Path, user: str) -> None:
    token = {name: Credentials(home).read(HTTP, name) for name in (APPLICATION, OPS, SERVICES)}
    given = json.loads(run("env", "--user", user, "--json"))
    assert given == ADDRESSES | {
        "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": f"{user}:{token[user]}",
        "CLICKHOUSE_URL": f"http://ops:{token[OPS]}@127.0.0.1:3/tailrace",
        "TAILRACE_HOME": str(home),
    }
    lines = run("env", "--user", user).splitlines()
    assert dict(shlex.split(line)[1].split("=", 1) for line in lines) == given
    assert token[SERVICES] not in "".join(lines)


def test_it_is_the_application_unless_ops_is_asked_for(home: Path) -> None:
    assert json.loads(run("env", "--json"))["SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"].startswith("application:")
    assert CliRunner().invoke(app, ["env", "--user", "services"]).exit_code == 2


def test_for_a_server_that_is_another_s_nothing_is_given(home: Path) -> None:
    others = ADDRESSES | {"SCHEMA_REGISTRY_URL": "http://other:2", "CLICKHOUSE_URL": "http://other:3/db"}
    write_addresses(home, others)
    assert json.loads(run("env", "--json")) == others | {"TAILRACE_HOME": str(home)}


def test_a_renewed_token_is_printed_by_env_and_not_by_renew(home: Path) -> None:
    before = Credentials(home).read(HTTP, OPS)
    printed = run("credentials", "renew", "ops", "--json")
    after = Credentials(home).read(HTTP, OPS)
    assert before != after
    assert json.loads(printed) == {
        "user": "ops",
        "file": str(home / "credentials" / "http" / "ops" / "token"),
        "former_counts_s": 86400,
    }
    assert f"ops:{after}" in run("env", "--user", "ops")
    assert json.loads(run("credentials", "renew", "ops", "--now", "--json"))["former_counts_s"] == 1


def test_what_is_not_there_is_not_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_HOME", str(tmp_path))
    with pytest.raises(TailraceError, match="`tailrace up` makes them"):
        run("credentials", "renew", "ops")
    assert not (tmp_path / "credentials").exists()
    assert CliRunner().invoke(app, ["credentials", "renew", "nobody"]).exit_code == 2
    with pytest.raises(TailraceError, match="tailrace up --detach"):
        run("env")
