"""Whose password a connection has: the environment's, the home's, or none; and what a shell is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tailrace.access.credentials import APPLICATION, KAFKA, OPS, OWNER, Credentials
from tailrace.access.home_servers import login
from tailrace.clickhouse.client import ClickHouse
from tailrace.connection import ADDRESSES, Connection, connect, connect_to_running, environment
from tailrace.errors import TailraceError, UsageError
from tailrace.local.environment import kept_by_the_shell
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


ELSEWHERE = {
    "KAFKA_BOOTSTRAP_SERVERS": "one:9092,two:9092",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "PLAIN",
    "KAFKA_SASL_USERNAME": "me",
    "SCHEMA_REGISTRY_URL": "https://registry:8081",
    "CLICKHOUSE_URL": "https://clickhouse:8443/db",
}
"""What a home has written down of servers that are others'."""

SHELL = ELSEWHERE | {
    "KAFKA_BOOTSTRAP_SERVERS": "SASL_SSL://one:9092, SASL_SSL://two:9092",
    "KAFKA_SASL_PASSWORD": "for kafka",
    "SCHEMA_REGISTRY_URL": "https://me:for%20registry@registry:8081/",
    "CLICKHOUSE_URL": "https://me:for-clickhouse@clickhouse:8443/db",
}
"""The shell from which `tailrace up` was called."""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A home whose Kafka, registry and ClickHouse are others'."""
    (tmp_path / ADDRESSES).parent.mkdir()
    (tmp_path / ADDRESSES).write_text(json.dumps(ELSEWHERE))
    return tmp_path


def _logins(connection: Connection) -> tuple[str | None, str | None, str | None]:
    clickhouse = ClickHouse.connect(connection)
    return (
        connection.kafka.get("sasl.password"),
        login(connection.registry_auth),
        login(clickhouse._auth),
    )


def test_who_asks_after_what_runs_has_the_shell_s_credentials_for_the_same_servers(elsewhere: Path) -> None:
    assert _logins(connect_to_running(elsewhere, SHELL)) == (
        "for kafka",
        "me:for registry",
        "me:for-clickhouse",
    )
    assert connect_to_running(elsewhere, SHELL).bootstrap == "one:9092,two:9092"


def test_who_asks_after_what_runs_is_not_led_to_other_servers(elsewhere: Path) -> None:
    other = {
        **SHELL,
        "KAFKA_BOOTSTRAP_SERVERS": "three:9092",
        "SCHEMA_REGISTRY_URL": "https://me:x@other:8081",
        "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": "me:x",
        "CLICKHOUSE_URL": "https://me:x@other:8443/db",
    }
    connection = connect_to_running(elsewhere, other)
    assert _logins(connection) == (None, None, None)
    assert connection.bootstrap == ELSEWHERE["KAFKA_BOOTSTRAP_SERVERS"]
    assert connection.registry == ELSEWHERE["SCHEMA_REGISTRY_URL"]


def test_a_protocol_before_the_servers_counts_as_the_setting_does() -> None:
    given = HERE | {"KAFKA_BOOTSTRAP_SERVERS": "SSL://a:1,ssl://b:2"}
    assert connect(given).kafka == {"bootstrap.servers": "a:1,b:2", "security.protocol": "SSL"}
    assert connect(given | {"KAFKA_SECURITY_PROTOCOL": "ssl"}).kafka["security.protocol"] == "SSL"
    with pytest.raises(UsageError, match=r"SSL:// and KAFKA_SECURITY_PROTOCOL says SASL_SSL"):
        connect(given | {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"})


def test_a_login_without_a_mechanism_is_refused_before_two_clients_take_two() -> None:
    for given in (
        {"KAFKA_SECURITY_PROTOCOL": "sasl_ssl"},
        {"KAFKA_BOOTSTRAP_SERVERS": "SASL_PLAINTEXT://a:1"},
    ):
        with pytest.raises(UsageError, match=r"KAFKA_SASL_MECHANISM is not set: .*SCRAM-SHA-256"):
            connect(HERE | given)
        assert connect(HERE | given | {"KAFKA_SASL_MECHANISM": "PLAIN"}).kafka["sasl.mechanism"] == "PLAIN"


def test_credentials_in_an_address_win_over_those_left_in_the_shell() -> None:
    given = HERE | {"SCHEMA_REGISTRY_URL": "http://me:mine@registry:8081"}
    left = {"SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": "application:token-of-a-home"}
    assert login(connect(given | left).registry_auth) == "me:mine"
    assert login(connect(HERE | left).registry_auth) == "application:token-of-a-home"


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    for name, reason in (("nowhere", "No such file"), ("binary", "no text"), ("", "directory")):
        given = HERE | {"KAFKA_SASL_PASSWORD_FILE": str(tmp_path / name)}
        with pytest.raises(TailraceError, match=rf"KAFKA_SASL_PASSWORD_FILE is .*{reason}"):
            connect(given)


def test_env_leaves_to_the_shell_what_only_the_shell_has_credentials_for() -> None:
    assert kept_by_the_shell(ELSEWHERE, SHELL) == ["SCHEMA_REGISTRY_URL", "CLICKHOUSE_URL"]
    assert kept_by_the_shell(ELSEWHERE, ELSEWHERE) == []
    assert kept_by_the_shell(HERE, SHELL) == []
    assert kept_by_the_shell(SHELL, SHELL) == [], "of the home's own servers the credentials are printed"


def _unless_credentials(refuse: object) -> object:
    read = Path.read_text

    def reading(path: Path, *options: object) -> str:
        return refuse() if "credentials" in path.parts else read(path)  # type: ignore[operator]

    return reading
