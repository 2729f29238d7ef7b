"""Who sends which token where: a home's own servers get the home's, others what the environment says."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from tailrace.access.credentials import (
    APPLICATION,
    HTTP,
    HTTP_USERS,
    KAFKA,
    OPS,
    OWNER,
    SERVICES,
    Credentials,
    digest,
)
from tailrace.access.home_servers import (
    CLICKHOUSE,
    REGISTRY,
    close_door,
    is_own,
    login,
    make_tokens,
    open_door,
    with_userinfo,
)
from tailrace.addresses import credentials_in
from tailrace.connection import connect

URL, STORE = "http://127.0.0.1:8081", "http://127.0.0.1:8123"
ENV = {"KAFKA_BOOTSTRAP_SERVERS": "k:1", "SCHEMA_REGISTRY_URL": URL, "CLICKHOUSE_URL": f"{STORE}/tailrace"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_door(tmp_path, REGISTRY, URL)
    open_door(tmp_path, CLICKHOUSE, STORE)
    return tmp_path


def expected(home: Path, user: str) -> str:
    return f"{user}:{Credentials(home).read(HTTP, user)}"


@pytest.mark.parametrize(
    ("user", "comes_as"),
    [(OWNER, SERVICES), ("scorer", SERVICES), (APPLICATION, APPLICATION), (OPS, OPS)],
)
def test_the_home_s_own_servers_get_the_home_s_token(home: Path, user: str, comes_as: str) -> None:
    found = connect(ENV, home, user)
    assert login(found.registry_auth) == login(found.clickhouse_auth) == expected(home, comes_as)
    assert expected(home, comes_as).partition(":")[2] not in repr(found)


def test_it_does_even_where_the_environment_says_other_credentials(home: Path) -> None:
    env = ENV | {
        "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": "application:x",
        "CLICKHOUSE_URL": "http://ops:x@127.0.0.1:8123/d",
    }
    connection = connect(env, home)
    assert login(connection.registry_auth) == login(connection.clickhouse_auth) == expected(home, SERVICES)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8082",
        "http://127.0.0.1",
        "https://127.0.0.1:8081",
        "http://localhost:8081",
        "http://127.0.0.1:8081@evil.example:8081",
        "http://evil.example:8081",
        "http://evil.example/127.0.0.1:8081",
    ],
)
def test_another_server_never_gets_the_home_s_token(home: Path, url: str) -> None:
    env = ENV | {"SCHEMA_REGISTRY_URL": url, "CLICKHOUSE_URL": url}
    connection = connect(env, home)
    for user in HTTP_USERS:
        for auth in (connection.registry_auth, connection.clickhouse_auth):
            assert Credentials(home).read(HTTP, user) not in (login(auth) or "")
    given = connect(env | {"SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": "a:b"}, home)
    assert login(given.registry_auth) == (credentials_in(url) or "a:b"), (
        "what the address says is meant for it"
    )


def test_a_server_that_has_ended_gets_none(home: Path) -> None:
    connection = connect(ENV, home)
    close_door(home, REGISTRY)
    assert login(connection.registry_auth) is None
    assert login(connection.clickhouse_auth) is not None
    close_door(home, REGISTRY)


def test_a_renewed_token_is_read_anew(home: Path) -> None:
    found = connect(ENV, home)
    before = login(found.registry_auth)
    Credentials(home).renew(HTTP, SERVICES)
    assert login(found.registry_auth) == expected(home, SERVICES) != before


def test_credentials_of_a_url_are_those_that_were_put_in() -> None:
    url = with_userinfo("http://old:one@host:8123/db", "ops:a/b@c:d")
    assert credentials_in(url) == "ops:a/b@c:d"
    assert url.endswith("@host:8123/db")
    assert "old" not in url


def test_files_are_for_the_owner_alone(home: Path) -> None:
    for file in (*(home / "credentials").rglob("*"), *(home / "access").rglob("*.sha256")):
        assert file.stat().st_mode & 0o077 == 0, file
    assert stat.S_IMODE((home / "access").stat().st_mode) == 0o700


def test_what_servers_read_holds_no_token(home: Path) -> None:
    tokens = [Credentials(home).read(HTTP, user) for user in HTTP_USERS]
    for file in (home / "access").iterdir():
        assert not [token for token in tokens if token and token in file.read_text()], file


def test_several_that_start_at_once_make_one_token(tmp_path: Path) -> None:
    threads = [threading.Thread(target=make_tokens, args=(tmp_path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for user in HTTP_USERS:
        token = Credentials(tmp_path).read(HTTP, user)
        assert token
        assert (tmp_path / "access" / f"{user}.sha256").read_text() == digest(token) + "\n"


def test_digests_that_are_gone_or_of_another_token_are_made_again(home: Path) -> None:
    store = Credentials(home)
    file = home / "access" / f"{OPS}.sha256"
    for damage in (file.unlink, lambda: file.write_text("0" * 64)):
        damage()
        assert store.make(HTTP, OPS) == store.read(HTTP, OPS)
        assert file.read_text() == digest(store.make(HTTP, OPS)) + "\n"


def test_a_password_of_kafka_has_no_digest(home: Path) -> None:
    Credentials(home).renew(KAFKA, "scorer")
    assert not (home / "access" / "scorer.sha256").exists()
    assert is_own(home, REGISTRY, URL)
