"""The door before a home's HTTP servers, alone: what it lets through, as whom, and what it answers to the rest."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from tests.support.asgi import Client

from tailrace.access.credentials import APPLICATION, HTTP, OPS, SERVICES, Credentials
from tailrace.access.digests import Digests
from tailrace.access.door import Door, DoorRules
from tailrace.access.home_servers import make_tokens
from tailrace.access.pages import host_names

URL = "http://127.0.0.1:8123"
JSON = "application/json"


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    """Says who came; for a path that is open, that nobody did."""
    request = Request(scope, receive)
    await PlainTextResponse(scope.get("user", "nobody") + " " + (await request.body()).decode())(
        scope, receive, send
    )


def rules(**changed: object) -> DoorRules:
    def refuse(status: int, sentence: str) -> Response:
        return PlainTextResponse(sentence, status)

    given = DoorRules(refuse, host_names("registry"), frozenset({SERVICES, OPS}), frozenset({"/ping"}))
    return given._replace(**changed)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_tokens(tmp_path)
    return tmp_path


def client(home: Path, **changed: object) -> Client:
    return Client(Door(behind, home, rules(**changed)))


@pytest.fixture
def door(home: Path) -> Client:
    return client(home)


def token(home: Path, user: str = OPS) -> str:
    found = Credentials(home).read(HTTP, user)
    assert found
    return found


def bearer(home: Path, user: str = OPS) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(home, user)}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("user", [SERVICES, OPS])
def test_the_token_says_who_comes_however_it_is_sent(door: Client, home: Path, user: str) -> None:
    mine = token(home, user)
    for headers in (
        bearer(home, user),
        {"Authorization": f"bearer {mine}"},
        basic(user, mine),
        basic("default", mine),
        basic("", mine),
        {"X-ClickHouse-Key": mine},
        {"X-ClickHouse-Key": mine, "X-ClickHouse-User": "somebody"},
    ):
        answer = door.get("/", headers=headers)
        assert (answer.status_code, answer.text) == (200, f"{user} "), headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic %%%"},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()},
        {"Authorization": "Negotiate x"},
        {"X-ClickHouse-Key": "wrong"},
        {"X-ClickHouse-User": SERVICES},
        {"Cookie": "token=x"},
        basic(SERVICES, ""),
        basic(SERVICES, "é"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_nobody_comes_in_without_a_token(door: Client, method: str, headers: dict[str, str]) -> None:
    answer = door.request(method, "/", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert "access-control-allow-origin" not in answer.headers
    if method != "HEAD":
        assert "`tailrace env` prints" in answer.text


def test_the_digest_of_a_token_is_no_token(door: Client, home: Path) -> None:
    (digest,) = (home / "access" / f"{OPS}.sha256").read_text().split()
    assert door.get("/", headers={"Authorization": f"Bearer {digest}"}).status_code == 401


def test_a_token_in_the_url_counts_only_where_it_may_be(home: Path) -> None:
    query = {"password": token(home), "user": "default"}
    assert client(home).get("/", params=query).status_code == 401
    with_url = client(home, token_in_url=True)
    assert with_url.get("/", params=query).text == f"{OPS} "
    assert with_url.get("/", params={"password": "wrong"}).status_code == 401
    # A header that is there decides.
    assert with_url.get("/", params=query, headers=basic(OPS, "wrong")).status_code == 401


def test_a_user_who_may_do_nothing_here_is_told_so(door: Client, home: Path) -> None:
    answer = door.get("/", headers=bearer(home, APPLICATION))
    assert answer.status_code == 403
    assert "application may do nothing here" in answer.text


def test_that_it_is_alive_is_said_to_all_and_nothing_else(door: Client) -> None:
    assert door.get("/ping").text == "nobody "
    assert door.get("/ping", headers={"Host": "anywhere"}).status_code == 200
    for path in ("/ping/", "/pin%67", "//ping", "/ping/../", "/ping;x"):
        assert door.get(path).status_code == 401, path
    assert door.post("/ping").status_code == 401


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8123", "localhost:1", "[::1]:8123", "REGISTRY:8081"]
)
def test_hosts_of_its_own(door: Client, home: Path, host: str) -> None:
    assert door.get("/", headers=bearer(home) | {"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8123", "127.0.0.1.evil.example", "127.0.0.1@evil", "", "::1", "0.0.0.0"],
)
def test_hosts_of_others(door: Client, home: Path, host: str) -> None:
    answer = door.get("/", headers=bearer(home) | {"Host": host})
    assert answer.status_code == 421
    assert "127.0.0.1" in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:8124"},
        {"Origin": "https://127.0.0.1:8123"},
        {"Origin": "http://localhost:8123"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_pages_of_others_do_nothing_even_with_a_token(
    door: Client, home: Path, method: str, headers: dict[str, str]
) -> None:
    answer = door.request(method, "/", headers=bearer(home) | headers)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_its_own_pages_and_what_is_typed_into_the_address_bar_come_in(door: Client, home: Path) -> None:
    for headers in ({"Origin": URL}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert door.get("/", headers=bearer(home) | headers).status_code == 200


def test_bodies_that_write_are_of_the_types_that_the_server_reads(home: Path) -> None:
    strict = client(home, media_types=frozenset({JSON}))
    for kind in (JSON, "application/JSON; charset=utf-8"):
        assert (
            strict.post("/", content=b"{}", headers=bearer(home) | {"Content-Type": kind}).text
            == f"{OPS} {{}}"
        )
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        None,
    ):
        headers = bearer(home) | ({} if kind is None else {"Content-Type": kind})
        assert strict.post("/", content=b"{}", headers=headers).status_code == 415, kind
    assert strict.get("/", headers=bearer(home)).status_code == 200
    assert client(home).post("/", headers=bearer(home) | {"Content-Type": "text/plain"}).status_code == 200


def test_a_websocket_does_not_come_in(door: Client, home: Path) -> None:
    assert [message["type"] for message in door.websocket("/", bearer(home))] == ["websocket.close"]


def test_a_renewed_token_counts_at_once_and_the_one_before_for_its_time(door: Client, home: Path) -> None:
    store, first = Credentials(home), bearer(home)
    assert door.get("/", headers=first).status_code == 200
    store.renew(HTTP, OPS)
    second = bearer(home)
    assert first != second
    assert [door.get("/", headers=one).status_code for one in (first, second)] == [200, 200]
    store.renew(HTTP, OPS)
    third = bearer(home)
    assert [door.get("/", headers=one).status_code for one in (first, second, third)] == [401, 200, 200]


def test_the_one_before_ends(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, digests, first = Credentials(home), Digests(home), token(home)
    store.renew(HTTP, OPS, grace_s=0)
    assert digests.user_of(token(home)) == OPS
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 0.5)
    assert digests.user_of(first) == OPS, "whoever has just read it is not refused"
    monkeypatch.setattr(time, "time", lambda: now + 1.5)
    assert digests.user_of(first) is None
    assert digests.user_of(token(home)) == OPS


@pytest.mark.parametrize("text", ["", "x", "x y", "e" * 63, "é" * 64, "\n\n", f"{'a' * 64} soon"])
def test_a_file_of_digests_that_says_nothing_sensible_admits_nobody(home: Path, text: str) -> None:
    (home / "access" / f"{OPS}.sha256").write_text(text)
    assert Digests(home).user_of(token(home)) is None
    assert Digests(home).user_of("") is None
    assert Digests(home).user_of(token(home, SERVICES)) == SERVICES


def test_a_home_without_tokens_admits_nobody(tmp_path: Path) -> None:
    assert client(tmp_path).get("/", headers=basic(SERVICES, "")).status_code == 401
