"""Of an address with a password in it, no more than the address is shown; what needs the password still has it."""

from __future__ import annotations

import base64
import http.server
import threading
from pathlib import Path

import pytest

from tailrace.addresses import credentials_in, http_parts, kafka_servers, without_credentials
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


@pytest.mark.parametrize("url", [f"me:{SECRET}@host:1", f"http://me:1{SECRET}@"])
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


@pytest.mark.parametrize(
    ("given", "servers", "protocol"),
    [
        ("host:9092", "host:9092", None),
        ("PLAINTEXT://host:9092", "host:9092", "PLAINTEXT"),
        ("sasl_ssl://a:1,SASL_SSL://b:2", "a:1,b:2", "SASL_SSL"),
        (" a:1 , b:2,", "a:1,b:2", None),
        ("SSL://[::1]:9093/", "[::1]:9093", "SSL"),
        ("SASL_PLAINTEXT://host", "host", "SASL_PLAINTEXT"),
    ],
)
def test_servers_may_be_written_as_a_broker_s_listeners(
    given: str, servers: str, protocol: str | None
) -> None:
    assert kafka_servers(given) == (servers, protocol)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("http://host:9092", "http:// *, which is no protocol of Kafka.*SASL_SSL://"),
        ("CLIENTS://host:9092", "clients://, which is no protocol"),
        ("PLAINTEXT://a:1,SSL://b:2", "one and the same protocol"),
        ("PLAINTEXT://a:1,b:2", "one and the same protocol"),
        ("PLAINTEXT://", "write host:port"),
        (" , ", "write host:port"),
        (f"SASL_SSL://me:{SECRET}@host:1", "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
    ],
)
def test_what_is_no_list_of_servers_is_refused(given: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason.replace(" *", "")) as refused:
        kafka_servers(given)
    assert SECRET not in str(refused.value)


def test_a_user_alone_has_an_empty_password() -> None:
    """As curl sends it: what is sent has a colon in it, or servers refuse it as no credentials at all."""
    assert credentials_in("http://token@host") == "token:"
    assert credentials_in("http://@host") is None


@pytest.mark.parametrize(
    "url", ["host:8081", "http://", "http://host:port", f"http://me:{SECRET}@host:port", "ftp://host", ""]
)
def test_what_is_no_http_address_has_no_parts(url: str) -> None:
    assert http_parts(url) is None


def test_parts_of_an_http_address_are_those_behind_the_credentials() -> None:
    parts = http_parts(f"https://me:a/{SECRET}?#@host:8443/base")
    assert parts is not None
    assert (parts.scheme, parts.hostname, parts.port, parts.path) == ("https", "host", 8443, "/base")
