"""Whose password a connection has: the environment's, the home's, or none; and what a shell is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tailrace.access.credentials import APPLICATION, KAFKA, OPS, OWNER, Credentials
from tailrace.connection import ADDRESSES, connect, environment
from tailrace.errors import TailraceError
from tailrace.local.kafka_security import CLIENTS

HERE = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "SCHEMA_REGISTRY_URL": "http://127.0.0.1:2"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which a broker with users runs."""
    (tmp_path / ADDRESSES).parent.mkdir()
    (tmp_path / ADDRESSES).write_text(json.dumps(HERE | CLIENTS))
    for user in (OWNER, APPLICATION, OPS, "scorer"):
        Credentials(tmp_path).make(KAFKA, user)
    return tmp_path


def _login(connection: dict[str, str]) -> tuple[str | None, str | None]:
    return connection.get("sasl.username"), connection.get("sasl.password")


@pytest.mark.parametrize("user", [OWNER, APPLICATION, "scorer"])
def test_each_user_has_its_own_password(home: Path, user: str) -> None:
    kafka = connect({}, home, user).kafka
    assert _login(kafka) == (user, Credentials(home).read(KAFKA, user))
    assert kafka["security.protocol"] == "SASL_PLAINTEXT"
    assert kafka["sasl.mechanism"] == "SCRAM-SHA-256"


def test_a_service_finds_its_password_before_addresses_are_written(home: Path) -> None:
    (home / ADDRESSES).unlink()
    assert _login(connect(HERE | CLIENTS, home, "scorer").kafka)[0] == "scorer"


def test_what_is_given_wins(home: Path) -> None:
    given = {"KAFKA_SASL_USERNAME": "me", "KAFKA_SASL_PASSWORD": "mine"}
    assert _login(connect(given, home).kafka) == ("me", "mine")


def test_a_user_of_a_cluster_of_one_s_own_may_be_called_like_one_of_the_home_s(home: Path) -> None:
    given = {"KAFKA_SASL_USERNAME": APPLICATION, "KAFKA_SASL_PASSWORD": "another"}
    assert _login(connect(given, home).kafka) == (APPLICATION, "another")


def test_a_shell_that_knows_the_application_still_runs_services_as_themselves(home: Path) -> None:
    shell = environment(home, APPLICATION)
    assert _login(connect(shell, home, "scorer").kafka)[0] == "scorer"
    assert _login(connect(shell, home).kafka)[0] == OWNER


def test_a_shell_is_told_of_the_user_asked_for_alone(home: Path) -> None:
    assert environment(home, OPS) == {
        **HERE,
        **CLIENTS,
        "KAFKA_SASL_USERNAME": OPS,
        "KAFKA_SASL_PASSWORD": Credentials(home).read(KAFKA, OPS),
    }


def test_no_password_goes_where_it_would_be_shown(home: Path) -> None:
    """PLAIN tells the broker the password; the home's are for its own broker, which is asked by SCRAM."""
    elsewhere = {"KAFKA_BOOTSTRAP_SERVERS": "elsewhere:9092", "KAFKA_SASL_MECHANISM": "PLAIN"}
    assert _login(connect(elsewhere, home).kafka) == (None, None)


def test_an_open_broker_is_asked_for_nothing(home: Path) -> None:
    (home / ADDRESSES).write_text(json.dumps(HERE))
    assert connect({}, home).kafka == {"bootstrap.servers": "127.0.0.1:1"}


def test_a_missing_password_is_said(home: Path) -> None:
    with pytest.raises(TailraceError, match=r"kafka/joiner/password is missing.*tailrace up"):
        connect({}, home, "joiner")


def test_a_home_of_somebody_else_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied", str(home / "credentials" / "kafka" / OWNER))

    monkeypatch.setattr(Path, "read_text", _unless_credentials(refuse))
    with pytest.raises(TailraceError, match="only the owner"):
        connect({}, home)
    given = {"KAFKA_SASL_USERNAME": APPLICATION, "KAFKA_SASL_PASSWORD": "told to me"}
    assert _login(connect(given, home).kafka) == (APPLICATION, "told to me")


def _unless_credentials(refuse: object) -> object:
    read = Path.read_text

    def reading(path: Path, *options: object) -> str:
        return refuse() if "credentials" in path.parts else read(path)  # type: ignore[operator]

    return reading
