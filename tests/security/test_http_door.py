"""Attacks on the door of registry and ClickHouse, both as they are served, with a schema and a table behind them."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from tests.support.registry_server import registry_server
from tests.support.waiting import until

from tailrace.access.credentials import APPLICATION, HTTP, HTTP_USERS, OPS, SERVICES, Credentials
from tailrace.avro.registry import RegistryClient
from tailrace.clickhouse.client import ClickHouse
from tailrace.connection import connect
from tailrace.errors import TailraceError, Unavailable
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process

ANOTHER = 65534
REGISTERED, WRITE = "/subjects/s/versions", json.dumps({"schema": '"string"'}).encode()
JSON = {"Content-Type": "application/json"}
FORBIDDEN_ANSWERS = (401, 403, 415, 421)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Doors:
    """A home whose registry and ClickHouse run. The registry's log is away: it knows the schema 5 and no more."""

    home: Path
    registry: str
    clickhouse: str

    def token(self, user: str) -> str:
        found = Credentials(self.home).read(HTTP, user)
        assert found
        return found

    def ask_registry(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        return ask(self.registry, method, path, headers, body)

    def ask_clickhouse(self, statement: str, headers: Mapping[str, str], method: str = "POST") -> Answer:
        if method == "GET":
            return ask(self.clickhouse, "GET", f"/?query={quote(statement)}", headers)
        return ask(self.clickhouse, method, "/", headers, statement.encode())

    def rows(self) -> bytes:
        """What is in the table, as services see it."""
        return self.ask_clickhouse("SELECT count() FROM tailrace.kept", bearer(self.token(SERVICES))).body


def ask(url: str, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    with tempfile.TemporaryDirectory(prefix="tailrace-door-") as folder:
        os.chmod(folder, 0o755)  # what is in the way of others is the home's own, and no folder above it
        home, port = Path(folder) / "home", free_port()
        home.mkdir(mode=0o755)
        env = {"TAILRACE_HOME": str(home), "TAILRACE_PORT": str(port)}
        command = [sys.executable, "-m", "tailrace.cli", "run", "clickhouse"]
        bridge = Process(command, home / "clickhouse.log", os.environ | env)
        bridge.launch()
        with registry_server({"bootstrap.servers": f"{HOST}:{free_port()}"}, 0.3, home) as (registry, log):
            key = {"keytype": "SCHEMA", "subject": "s", "version": 1, "magic": 1}
            value = {"subject": "s", "version": 1, "id": 5, "schema": '"long"', "deleted": False}
            log.cached().apply(json.dumps(key).encode(), json.dumps(value).encode())
            doors = Doors(home, registry, f"http://{HOST}:{port}")
            try:
                until(lambda: _pings(doors.clickhouse) or not bridge.running(), bridge.last_words)
                assert bridge.running(), bridge.last_words()
                _keep_a_row(doors)
                yield doors
            finally:
                bridge.stop(10)


def _keep_a_row(doors: Doors) -> None:
    """As our own services would."""
    clickhouse = ClickHouse(doors.clickhouse, auth=f"{SERVICES}:{doors.token(SERVICES)}")
    clickhouse.create_database()
    clickhouse.command(
        "CREATE TABLE IF NOT EXISTS tailrace.kept (a Int64) ENGINE = ReplacingMergeTree ORDER BY (a)"
    )
    clickhouse.insert("kept", {"a": [1]}, {"a": "Int64"}, "first")
    clickhouse.close()


def _pings(url: str) -> bool:
    try:
        return ask(url, "GET", "/ping", {}).status == 200
    except OSError:
        return False


def assert_nothing_was_done(doors: Doors, headers: Mapping[str, str], statuses: tuple[int, ...]) -> None:
    """Nothing is read and nothing written with these headers, by any way in."""
    for method, path, body in (
        ("GET", "/schemas/ids/5", b""),
        ("GET", "/subjects", b""),
        ("POST", REGISTERED, WRITE),
        ("PUT", "/config", b'{"compatibility": "NONE"}'),
        ("DELETE", "/subjects/s", b""),
    ):
        answer = doors.ask_registry(method, path, JSON | headers, body)
        assert answer.status in statuses, (method, path, answer)
        assert json.loads(answer.body)["error_code"] // 100 in (*statuses, 4), answer
        assert b"long" not in answer.body
        assert "access-control-allow-origin" not in answer.headers
    for method, statement in (
        ("POST", "SELECT 41 + 1"),
        ("GET", "SELECT 41 + 1"),
        ("POST", "DROP TABLE tailrace.kept"),
    ):
        answer = doors.ask_clickhouse(statement, headers, method)
        assert answer.status in statuses, (method, statement, answer)
        assert answer.headers["X-ClickHouse-Exception-Code"] in ("516", "497")
        assert answer.body.startswith(b"Code: ")
        assert b"42" not in answer.body
        assert "access-control-allow-origin" not in answer.headers
    assert doors.rows() == b"1\n"


def test_those_who_may_read_both(doors: Doors) -> None:
    """What all refusals below are measured against."""
    for headers in (
        bearer(doors.token(OPS)),
        {"X-ClickHouse-Key": doors.token(OPS)},
        basic(OPS, doors.token(OPS)),
    ):
        assert doors.ask_registry("GET", "/schemas/ids/5", headers).body == b'{"schema":"\\"long\\""}'
        assert doors.ask_clickhouse("SELECT 41 + 1", headers).body == b"42\n"


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def test_without_a_token(doors: Doors) -> None:
    assert_nothing_was_done(doors, {}, (401,))
    assert_nothing_was_done(doors, {"X-ClickHouse-User": SERVICES}, (401,))
    answer = doors.ask_clickhouse("SELECT 1", {})
    assert b"`tailrace env` prints it. (AUTHENTICATION_FAILED)" in answer.body
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert json.loads(doors.ask_registry("GET", "/subjects", {}).body)["error_code"] == 40101


def test_with_a_wrong_token(doors: Doors) -> None:
    for user in HTTP_USERS:
        token = doors.token(user)
        for refused in (token[:-1], token + "x", token.swapcase(), user, ""):
            assert_nothing_was_done(doors, basic(user, refused), (401,))


def test_with_the_digest_that_the_servers_read(doors: Doors) -> None:
    for file in (doors.home / "access").glob("*.sha256"):
        assert_nothing_was_done(doors, bearer(file.read_text().split()[0]), (401,))


def test_alive_is_all_that_is_said_to_everybody(doors: Doors) -> None:
    assert ask(doors.clickhouse, "GET", "/ping", {}).body == b"Ok.\n"
    assert ask(doors.registry, "GET", "/livez", {}).body == b"ok\n"
    assert ask(doors.clickhouse, "GET", "/ping?query=SELECT+42", {}).body == b"Ok.\n"


READ_AS_ANOTHER = f"""
import os, sys
os.setgroups([]); os.setgid({ANOTHER}); os.setuid({ANOTHER})
for path in sys.argv[1:]:
    try:
        print(path, open(path).read())
    except PermissionError:
        pass
"""


def test_another_user_reads_no_token_and_no_digest(doors: Doors) -> None:
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "in CI this runs as root, so that it can become another user"
        pytest.skip("only root can become another user here")
    everything = [file for folder in ("credentials", "access") for file in (doors.home / folder).rglob("*")]
    files = [str(file) for file in everything if file.is_file()]
    assert len([file for file in files if "credentials/http/" in file]) == len(HTTP_USERS)
    witness = doors.home / "readable"
    witness.write_text("by all")
    witness.chmod(0o644)
    script = doors.home / "read.py"
    script.write_text(READ_AS_ANOTHER)
    done = subprocess.run(
        ["/usr/bin/env", "-i", sys.executable, "-I", str(script), str(witness), *files],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert (done.stdout, done.stderr) == (f"{witness} by all\n", "")


@pytest.mark.parametrize(
    "page",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_a_page_in_a_browser_that_knows_the_password(doors: Doors, page: dict[str, str]) -> None:
    """The browser adds by itself what its user once typed in."""
    typed_in = basic(SERVICES, doors.token(SERVICES))
    assert_nothing_was_done(doors, typed_in | page, (403,))
    preflight = page | {"Access-Control-Request-Method": "POST"}
    for url in (doors.registry, doors.clickhouse):
        answer = ask(url, "OPTIONS", "/?add_http_cors_header=1", preflight)
        assert answer.status == 403
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8123", "127.0.0.1.evil.example", "localhost.evil"]
)
def test_a_name_of_another_s_that_points_here(doors: Doors, host: str) -> None:
    """DNS rebinding: the browser takes the page for the server's own, so that nothing but the name gives it away."""
    page = basic(SERVICES, doors.token(SERVICES)) | {"Host": host, "Origin": f"http://{host}"}
    assert_nothing_was_done(doors, page, (421,))


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_schema_that_comes_as_what_any_page_may_send(doors: Doors, kind: str) -> None:
    headers = bearer(doors.token(SERVICES)) | {"Content-Type": kind}
    for method, path in (
        ("POST", REGISTERED),
        ("POST", "/subjects/s"),
        ("PUT", "/config/s"),
        ("PUT", "/mode"),
    ):
        assert doors.ask_registry(method, path, headers, WRITE).status == 415, (method, path)


ADMINISTRATION = [
    ("PUT", "/config"),
    ("PUT", "/config/s"),
    ("DELETE", "/config/s"),
    ("PUT", "/mode"),
    ("PUT", "/mode/s"),
    ("DELETE", "/mode/s"),
    ("DELETE", "/subjects/s"),
    ("DELETE", "/subjects/s/versions/1"),
]


@pytest.mark.parametrize(("method", "path"), ADMINISTRATION)
@pytest.mark.parametrize("user", [APPLICATION, OPS])
def test_others_than_services_administer_the_registry(
    doors: Doors, user: str, method: str, path: str
) -> None:
    answer = doors.ask_registry(method, path, JSON | bearer(doors.token(user)), b'{"compatibility": "NONE"}')
    assert (answer.status, json.loads(answer.body)["error_code"]) == (403, 40301), answer


def test_ops_registers_a_schema(doors: Doors) -> None:
    def register(user: str) -> int:
        return doors.ask_registry("POST", REGISTERED, JSON | bearer(doors.token(user)), WRITE).status

    assert register(OPS) == 403
    # Those who may get as far as to the log, which is away.
    assert (register(APPLICATION), register(SERVICES)) == (500, 500)
    compare = "/compatibility/subjects/s/versions"
    assert doors.ask_registry("POST", compare, JSON | bearer(doors.token(OPS)), WRITE).status == 500


def test_an_application_asks_clickhouse(doors: Doors) -> None:
    for statement in ("SELECT 42", "INSERT INTO tailrace.kept VALUES (2)", ""):
        answer = doors.ask_clickhouse(statement, bearer(doors.token(APPLICATION)))
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "497")
    assert doors.rows() == b"1\n"


def test_a_token_that_was_renewed_since(doors: Doors) -> None:
    stolen = doors.token(OPS)
    env = os.environ | {"TAILRACE_HOME": str(doors.home)}
    command = [sys.executable, "-m", "tailrace.cli", "credentials", "renew", "ops", "--now", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["user"] == OPS
    assert doors.token(OPS) not in done.stdout + done.stderr
    assert doors.ask_clickhouse("SELECT 42", bearer(doors.token(OPS))).body == b"42\n", (
        "at once, without a restart"
    )
    time.sleep(1.1)
    assert_nothing_was_done(doors, bearer(stolen), (401,))


def test_what_runs_goes_on_when_its_token_is_renewed(doors: Doors) -> None:
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": "x:1",
        "SCHEMA_REGISTRY_URL": doors.registry,
        "CLICKHOUSE_URL": doors.clickhouse,
    }
    connection = connect(env, doors.home)
    registry, clickhouse = (
        RegistryClient(connection.registry, connection.registry_auth),
        ClickHouse.connect(connection),
    )
    assert clickhouse.query("SELECT 41 + 1").rows == [(42,)]
    Credentials(doors.home).renew(HTTP, SERVICES, grace_s=0)
    time.sleep(1.1)
    assert registry.schema(5) == "long"
    assert clickhouse.query("SELECT 41 + 1").rows == [(42,)]
    clickhouse.close()


class _Foreign(BaseHTTPRequestHandler):
    """Keeps what it is sent, and sends others on to where it is told to."""

    heard: list[str]
    elsewhere: str | None = None

    def do_GET(self) -> None:
        self.heard.append(str(self.headers))
        self.send_response(307 if self.elsewhere else 404)
        if self.elsewhere:
            self.send_header("Location", self.elsewhere + self.path)
        self.end_headers()
        self.wfile.write(b'{"error_code": 40403}')

    def log_message(self, *args: Any) -> None: ...


def foreign(elsewhere: str | None = None) -> tuple[str, list[str]]:
    """A server of somebody else, and what it hears."""
    heard: list[str] = []
    handler = type("Handler", (_Foreign,), {"heard": heard, "elsewhere": elsewhere})
    server = HTTPServer((HOST, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://{HOST}:{server.server_port}", heard


def test_a_server_of_another_s_is_sent_no_token(doors: Doors) -> None:
    url, heard = foreign()
    connection = connect(
        {"KAFKA_BOOTSTRAP_SERVERS": "x:1", "SCHEMA_REGISTRY_URL": url, "CLICKHOUSE_URL": url}, doors.home
    )
    with pytest.raises(Exception, match="knows no schema"):
        RegistryClient(connection.registry, connection.registry_auth).schema(5)
    with pytest.raises((TailraceError, Unavailable)):
        ClickHouse.connect(connection, timeout=3).query("SELECT 1")
    assert heard
    assert not [lines for lines in heard if "authorization" in lines.lower()]


def test_where_a_redirect_leads_is_sent_no_token() -> None:
    last, heard = foreign()
    first, heard_first = foreign(last)
    with pytest.raises(Exception, match="knows no schema"):
        RegistryClient(first, "services:secret").schema(5)
    assert "Authorization" in heard_first[0]
    assert heard
    assert "Authorization" not in heard[0]


def test_no_token_in_a_log_or_among_the_arguments_of_a_process(doors: Doors) -> None:
    """Also not of one that went wrong, or that came in a URL."""
    tokens = [doors.token(user) for user in HTTP_USERS]
    url = f"/?user=ops&password={doors.token(OPS)}&query="
    assert ask(doors.clickhouse, "GET", url + "SELECT+42", {}).body == b"42\n"
    for broken in (
        url + "SELECT+nonsense",
        url + "%ff%fe",
        f"/{doors.token(OPS)}?password={doors.token(OPS)}",
    ):
        answer = ask(doors.clickhouse, "GET", broken, {})
        assert answer.status >= 400
        assert not [token for token in tokens if token.encode() in answer.body]
    seen = [file for file in doors.home.rglob("*") if file.is_file() and "credentials" not in file.parts]
    assert any(file.name == "clickhouse.log" for file in seen)
    arguments = list(Path("/proc").glob("[0-9]*/cmdline"))
    for file in (*seen, *arguments):
        try:
            content = file.read_bytes()
        except OSError:
            continue  # it has ended, or is gone
        assert not [token for token in tokens if token.encode() in content], file
