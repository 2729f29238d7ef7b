"""The local ClickHouse over HTTP: every place where parts of a statement can stand is judged, whoever asks."""

from __future__ import annotations

import http.client
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from tests.support.waiting import until

from tailrace.local.health import ask
from tailrace.local.ports import HOST, free_port

SECRET = "the-secret-of-the-home"


class Bridge:
    """The bridge with nobody in front of it but a header that says who asks."""

    def __init__(self, home: Path) -> None:
        self.key = home / "keys" / "signing.key"
        self.key.parent.mkdir()
        self.key.write_text(SECRET)
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.clickhouse_walls", str(home), "--http", str(self.port)]
        )
        until(lambda: ask(f"http://{HOST}:{self.port}", "/ping").ok)

    def post(
        self, sql: str, user: str = "ops", form: bool = False, **parameters: str
    ) -> tuple[str | None, str]:
        """ClickHouse's code, None where it worked; and the answer."""
        body, headers = sql, {"X-Test-User": user}
        if form:
            mark = uuid.uuid4().hex
            headers["Content-Type"] = f"multipart/form-data; boundary={mark}"
            fields = {"query": sql} | parameters
            body = "".join(
                f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in fields.items()
            )
            body, parameters = body + f"--{mark}--\r\n", {}
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        connection.request("POST", f"/?{urlencode(parameters)}", body, headers)
        answer = connection.getresponse()
        content = answer.read().decode(errors="replace")
        connection.close()
        return answer.headers["X-ClickHouse-Exception-Code"], content


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    bridge = Bridge(tmp_path_factory.mktemp("http"))
    yield bridge
    bridge.process.terminate()
    bridge.process.wait(30)


@pytest.mark.parametrize("user", ["ops", "services"])
@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT 1 FORMAT Template SETTINGS format_template_row = '@KEY'", {}),
        ("SELECT 1 FORMAT Template", {"format_template_row": "@KEY"}),
        ("SELECT 1", {"default_format": "Template", "format_template_row": "@KEY"}),
        ("SELECT 1", {"default_format": "Template"}),
        ("SELECT 1", {"additional_result_filter": "throwIf(1, file('@KEY'))"}),
        ("SELECT 1 SETTINGS additional_result_filter = {f:String}", {"param_f": "throwIf(1, file('@KEY'))"}),
        ("SELECT arrayMap({f:Identifier}, ['@KEY'])", {"param_f": "file"}),
        (
            "SELECT * FROM format(CSV, {s:String}, 'x')",
            {"param_s": "a String, b String DEFAULT file('@KEY')"},
        ),
        ("SELECT * FROM {t:Identifier}", {"param_t": "@KEY"}),
        ("SELECT 1", {"dialect": "prql"}),
        ("SELECT 1 AS a FORMAT Protobuf", {"output_format_schema": "@KEY.proto"}),
    ],
)
def test_nothing_of_a_request_is_left_unjudged(
    bridge: Bridge, user: str, sql: str, parameters: dict[str, str]
) -> None:
    filled = {name: value.replace("@KEY", str(bridge.key)) for name, value in parameters.items()}
    code, answer = bridge.post(sql.replace("@KEY", str(bridge.key)), user, **filled)
    assert code == "497", answer
    assert SECRET not in answer
    assert [path.name for path in bridge.key.parent.iterdir()] == ["signing.key"]


def test_a_form_is_judged_like_a_url(bridge: Bridge) -> None:
    assert bridge.post("SELECT {a:Int8}", form=True, param_a="3") == (None, "3\n")
    assert bridge.post("SELECT arrayMap({f:Identifier}, ['x'])", form=True, param_f="file")[0] == "497"
    assert bridge.post("SELECT 1", form=True, format_template_row=str(bridge.key))[0] is not None


def test_ops_read_and_services_write(bridge: Bridge) -> None:
    table = "CREATE TABLE d.t (a Int8) ENGINE = ReplacingMergeTree ORDER BY a"
    for sql in ("CREATE DATABASE d", table, "INSERT INTO d.t FORMAT CSV\n1\n"):
        code, answer = bridge.post(sql, "ops")
        assert (code, "only reads" in answer) == ("497", True)
        assert bridge.post(sql, "services") == (None, "")
    assert bridge.post("SELECT a FROM d.t", "ops") == (None, "1\n")


def test_who_is_neither_gets_nothing(bridge: Bridge) -> None:
    assert bridge.post("SELECT 1", "application")[0] == "497"
