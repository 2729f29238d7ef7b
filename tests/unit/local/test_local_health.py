"""What a health answer says."""

from __future__ import annotations

import http.server
import socket
import threading

import pytest

from tailrace.errors import TailraceError
from tailrace.local.health import HealthAnswer, ask, reason, starting
from tailrace.local.ports import HOST, free_port, require_free


def test_nobody_there_is_an_answer_too() -> None:
    answer = ask(f"http://{HOST}:{free_port()}", "/livez")
    assert answer.status is None
    assert not answer.ok
    assert "refused" in answer.text


@pytest.mark.parametrize("url", ["host:8123", "http://me:hunter2@host:port", "http://"])
def test_what_is_no_address_is_an_answer_too(url: str) -> None:
    answer = ask(url, "/ping")
    assert answer.status is None
    assert "no address" in answer.text
    assert "hunter2" not in answer.text


def test_an_address_without_a_port_leads_to_the_usual_one() -> None:
    with socket.socket() as server:
        server.bind((HOST, 0))
        port = server.getsockname()[1]
    with http.server.HTTPServer((HOST, port), http.server.BaseHTTPRequestHandler) as listening:
        threading.Thread(target=listening.handle_request, daemon=True).start()
        assert ask(f"http://{HOST}", "/ping", usual_ports={"http": port}).status == 501


def test_the_reason_of_a_service_that_is_not_ready() -> None:
    assert reason(HealthAnswer(200, "{}")) is None
    assert (
        reason(HealthAnswer(503, '{"ready": false, "reason": "no model for credit"}'))
        == "no model for credit"
    )
    assert reason(HealthAnswer(503, "")) == "HTTP 503"


def test_a_taken_port_is_said_before_a_server_is_started() -> None:
    port = free_port()
    require_free(port, "the schema registry")
    with socket.socket() as other:
        other.bind((HOST, port))
        other.listen()
        with pytest.raises(TailraceError, match=f"port {port} for the schema registry is taken"):
            require_free(port, "the schema registry")


def test_a_service_that_waits_for_a_model_has_started() -> None:
    assert starting("starting")
    assert starting("reading the control topics")
    assert not starting("credit has no version in service")
