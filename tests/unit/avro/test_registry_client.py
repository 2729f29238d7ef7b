"""The registry's client against servers that answer badly, and not at all."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tailrace.avro.registry import IncompatibleSchema, RegistryClient, UnknownSchema
from tailrace.errors import BadRecord, TailraceError, Unavailable, UsageError


class Server(HTTPServer):
    """Gives the same answer to everything, and keeps what it was asked."""

    answer: tuple[int, bytes] = (200, b"{}")
    missing = 0  # bytes promised and not sent
    location = ""
    asked: list[tuple[str, str, dict[str, str], bytes]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def _any(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.asked.append((self.command, self.path, dict(self.headers), body))
        status, content = server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) + server.missing))
        if server.location:
            self.send_header("Location", server.location)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _any  # noqa: N815

    def log_message(self, *args: Any) -> None: ...


@contextmanager
def serving() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), _Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def error(code: int) -> bytes:
    return json.dumps({"error_code": code, "message": "because"}).encode()


@pytest.mark.parametrize(
    ("status", "content", "raised", "says"),
    [
        (404, error(40403), UnknownSchema, "unknown-schema"),
        (404, error(404), TailraceError, "check SCHEMA_REGISTRY_URL"),
        (404, b"<html>not found</html>", TailraceError, "not as a schema registry does"),
        (200, b"<html>welcome</html>", TailraceError, "not as a schema registry does"),
        (200, b"[]", TailraceError, "not as a schema registry does"),
        (401, error(40101), TailraceError, "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"),
        (403, error(40301), TailraceError, "lacks the right"),
        (500, error(50001), Unavailable, "answers 500"),
        (503, b"", Unavailable, "answers 503"),
        (429, b"", Unavailable, "answers 429"),
        (200, b'{"schema": "{}", "schemaType": "PROTOBUF"}', BadRecord, "PROTOBUF"),
        (200, b'{"schema": "{}", "references": [{"name": "x"}]}', BadRecord, "references"),
    ],
)
def test_each_answer_is_told_apart(
    server: Server, status: int, content: bytes, raised: type[Exception], says: str
) -> None:
    server.answer = (status, content)
    with pytest.raises(raised, match=says) as caught:
        RegistryClient(server.url).schema(7)
    assert type(caught.value) is raised


def test_a_refused_schema_says_why_and_what_to_do(server: Server) -> None:
    server.answer = (409, error(409))
    with pytest.raises(IncompatibleSchema, match=r"because.*give new ones a default"):
        RegistryClient(server.url).register("s", "long")


def test_what_never_changes_is_asked_for_once(server: Server) -> None:
    server.answer = (200, b'{"schema": "\\"long\\"", "id": 7}')
    client = RegistryClient(server.url)
    assert [client.schema(7), client.schema(7)] == ["long", "long"]
    assert [client.register("a/b c", "long"), client.register("a/b c", "long")] == [7, 7]
    assert [path for _, path, _, _ in server.asked] == ["/schemas/ids/7", "/subjects/a%2Fb%20c/versions"]
    assert json.loads(server.asked[1][3]) == {"schema": '"long"'}


def test_what_may_change_is_asked_for_again(server: Server) -> None:
    server.answer = (404, error(40403))
    client = RegistryClient(server.url)
    for _ in range(2):
        with pytest.raises(UnknownSchema):
            client.schema(7)
    server.answer = (200, b'{"schema": "\\"long\\""}')
    assert client.schema(7) == "long"


def test_credentials_are_sent_and_not_shown(server: Server) -> None:
    server.answer = (401, error(40101))
    with pytest.raises(TailraceError) as caught:
        RegistryClient(server.url, "ada:secret").latest("s")
    assert server.asked[0][2]["Authorization"] == "Basic YWRhOnNlY3JldA=="
    assert "secret" not in str(caught.value)


def test_a_proxy_for_the_world_is_not_asked_about_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    server.answer = (200, b'{"schema": "\\"long\\""}')
    assert RegistryClient(server.url).schema(7) == "long"


def test_an_answer_cut_short_is_a_retry(server: Server) -> None:
    server.missing = 5
    with pytest.raises(Unavailable, match="cannot be reached"):
        RegistryClient(server.url).schema(1)


def test_nobody_there_and_nobody_answering_are_retries(server: Server) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        RegistryClient("http://127.0.0.1:9").schema(1)
    with (
        HTTPServer(("127.0.0.1", 0), _Handler) as silent,
        pytest.raises(Unavailable, match="cannot be reached"),
    ):
        RegistryClient(f"http://127.0.0.1:{silent.server_port}", timeout=0.05).schema(1)


@pytest.mark.parametrize("url", ["localhost:8081", "file:///etc/passwd", "ftp://x", "http://", ""])
def test_what_is_no_address_is_said_at_once(url: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        RegistryClient(url)


def test_a_credential_that_is_refused_is_read_anew_and_sent_once_more(server: Server) -> None:
    server.answer = (401, error(40101))
    given = iter(["services:old", "services:new", "services:new"])
    client = RegistryClient(server.url, lambda: next(given))
    with pytest.raises(TailraceError, match="401"):
        client.latest("s")
    sent = [base64.b64decode(headers["Authorization"].split()[1]) for _, _, headers, _ in server.asked]
    assert sent == [b"services:old", b"services:new"]
    server.asked.clear()
    with pytest.raises(TailraceError, match="tailrace env"):
        client.latest("s")
    assert len(server.asked) == 1, "what was refused is not sent again"


def test_the_password_stays_where_it_was_addressed_to(server: Server) -> None:
    with serving() as other:
        other.answer = (200, b'{"schema": "\\"long\\""}')
        server.answer, server.location = (302, b""), f"{other.url}/schemas/ids/7"
        assert RegistryClient(server.url, "user:secret").schema(7) == "long"
    [(_, _, first, _)], [(_, _, second, _)] = server.asked, other.asked
    assert first["Authorization"] == "Basic " + base64.b64encode(b"user:secret").decode()
    assert "Authorization" not in second
