"""Of an address with a password in it, no more than the address is shown; what needs the password still has it."""

from __future__ import annotations

import base64
import http.server
import threading
from pathlib import Path

import pytest

from tailrace.addresses import credentials_in, without_credentials
from tailrace.avro.registry import RegistryClient
from tailrace.clickhouse.client import ClickHouse
from tailrace.connection import connect
from tailrace.errors import UsageError

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8123", "http://127.0.0.1:8123"),
        ("http://127.0.0.1:8123/database", "http://127.0.0.1:8123/database"),
        (f"https://me:{SECRET}@host:8443/database", "https://host:8443/database"),
        (f"https://me:{SECRET}@host/a?user=me&password={SECRET}", "https://host/a"),
        (f"http://me:a/{SECRET}?#@host:1", "http://host:1"),
        (f"http://me:{SECRET}@x@host:1", "http://host:1"),
        (f"http://me:{SECRET}://@host:1", "http://host:1"),
        (f"me:{SECRET}@host:8123", "host:8123"),
        (f"me:{SECRET}://x@host:8123", "host:8123"),
        (f"http://{SECRET}@host", "http://host"),
    ],
)
def test_an_address_is_shown_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_credentials_are_as_they_were_before_they_were_written_into_an_address() -> None:
    assert credentials_in("http://me:a%40b%2Fc@host") == "me:a@b/c"
    assert credentials_in("http://host/path") is None


@pytest.mark.parametrize(
    "url", [f"http://me:{SECRET}/x@host:1", f"me:{SECRET}@host:1", f"http://me:1{SECRET}@"]
)
def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    for client in (ClickHouse, RegistryClient):
        with pytest.raises(UsageError) as refused:
            client(url if client is ClickHouse else url.replace("http", "nothing"))
        assert SECRET not in str(refused.value)


def test_a_registry_is_asked_with_the_credentials_of_its_address(tmp_path: Path) -> None:
    class Asked(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b'{"error_code": 40401}')

        def log_message(self, *_: object) -> None: ...

    asked: list[str] = []
    with http.server.HTTPServer(("127.0.0.1", 0), Asked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://me:{SECRET}%21@127.0.0.1:{server.server_port}"
        connection = connect({"KAFKA_BOOTSTRAP_SERVERS": "nowhere:1", "SCHEMA_REGISTRY_URL": url}, tmp_path)
        for client in (RegistryClient(connection.registry, connection.registry_auth), RegistryClient(url)):
            assert client.latest("subject") is None
        server.shutdown()
    assert SECRET not in repr(connection)
    assert asked == [f"Basic {base64.b64encode(f'me:{SECRET}!'.encode()).decode()}"] * 2
