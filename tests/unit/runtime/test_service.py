"""What a service does as a process, short of Kafka: settings, logs, health, exit codes."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace.errors import TailraceError, UsageError
from tailrace.local.health import ask, reason, waiting_models
from tailrace.local.lag import OffsetsAhead, offsets_ahead
from tailrace.runtime import service
from tailrace.runtime.service import PoisonRecordQuarantine, Service, run_service
from tailrace.settings import read_settings
from tailrace.streaming.backends.abstract import Fatal
from tailrace.streaming.records import PlainMessage, TopicPartition
from tailrace.telemetry import metrics
from tailrace.telemetry.health import ALIVE_WITHIN_S, HealthServer
from tailrace.telemetry.logging import JsonFormatter, Seldom
from tailrace.testing.memory_registry import MemoryRegistry

# Settings ---


def test_settings_come_from_the_environment_and_have_defaults() -> None:
    settings = read_settings({"TAILRACE_HEALTH_PORT": "8081", "TAILRACE_HOME": "/data", "PATH": "/bin"})
    assert settings.health_port == 8081
    assert settings.home == Path("/data")
    assert settings.health_host == "127.0.0.1"
    assert settings.instance is None


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("TAILRACE_MAX_BATCH", "many", "TAILRACE_MAX_BATCH=many: .*integer"),
        ("TAILRACE_HEALTH_PORT", "70000", "TAILRACE_HEALTH_PORT=70000: .*65535"),
        ("TAILRACE_LOG_LEVEL", "LOUD", "TAILRACE_LOG_LEVEL=LOUD: "),
        ("TAILRACE_MAX_BACH", "1", "TAILRACE_MAX_BACH is not a setting: TAILRACE_MAX_BATCH is"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        read_settings({name: value})


# Logs ---


def record(
    message: str, at: float = 0.0, name: str = "tailrace.streaming.runner", **extra: object
) -> logging.LogRecord:
    return logging.makeLogRecord({"name": name, "levelname": "INFO", "msg": message, "created": at, **extra})


def test_a_log_line_is_json_with_what_was_given_besides() -> None:
    line = json.loads(JsonFormatter("scorer").format(record("assigned", partitions=["a/0"])))
    assert line == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "service": "scorer",
        "logger": "tailrace.streaming.runner",
        "message": "assigned",
        "partitions": ["a/0"],
    }


def test_what_a_client_library_repeats_is_logged_seldom() -> None:
    seldom = Seldom()
    complaint = "FAIL [scorer#producer-1] [thrd:bootstrap]: connection refused after "
    passed = [
        seldom.filter(record(f"{complaint}{n} ms", n, "tailrace.streaming.backends.kafka.consumer"))
        for n in range(21)
    ]
    assert [n for n, passes in enumerate(passed) if passes] == [0, 10, 20]
    assert all(seldom.filter(record(complaint, n)) for n in range(5))


# Health ---


class Status:
    def __init__(self, waiting: str | None = None) -> None:
        self.alive_ns = time.perf_counter_ns()
        self.waiting = waiting
        self.models: dict[str, str | None] = {}


def test_health_says_whether_it_is_alive_and_ready_and_why_not() -> None:
    status = Status("joining the consumer group")
    ahead = 0.0
    server = HealthServer("127.0.0.1", 0, status, lambda: time.perf_counter_ns() + int(ahead * 1e9))
    try:
        assert ask(server.address, "/livez").ok
        not_ready = ask(server.address, "/readyz")
        assert (not_ready.status, reason(not_ready)) == (503, "joining the consumer group")
        status.waiting = None
        assert ask(server.address, "/readyz").ok
        ahead = ALIVE_WITHIN_S + 1
        hung = ask(server.address, "/livez")
        assert hung.status == 503
        assert "no sign of life" in str(reason(hung))
        assert ask(server.address, "/secrets").status == 404
    finally:
        server.close()


def test_readiness_tells_models_apart() -> None:
    status = Status()
    status.models = {"credit": "it has no version", "wine": None}
    server = HealthServer("127.0.0.1", 0, status, time.perf_counter_ns)
    try:
        ready = ask(server.address, "/readyz")
        assert ready.ok
        assert waiting_models(ready) == {"credit": "it has no version"}
        one = ask(server.address, "/readyz?model=credit")
        assert (one.status, reason(one)) == (503, "it has no version")
        assert ask(server.address, "/readyz?model=wine").ok
        assert ask(server.address, "/readyz?model=beer").status == 404
        status.waiting = "reading the control topics"
        assert ask(server.address, "/readyz?model=wine").status == 503
        assert set(waiting_models(ask(server.address, "/readyz"))) == {"credit", "wine"}
        assert waiting_models(ask(server.address, "/livez")) == {}
    finally:
        server.close()


def test_metrics_are_served_and_the_lag_can_be_read_from_them() -> None:
    for partition, position, ahead in (("0", 17, 4), ("1", 0, 3)):
        metrics.POSITION.labels("g", "t", partition).set(position)
        metrics.LAG.labels("g", "t", partition).set(ahead)
    server = HealthServer("127.0.0.1", 0, Status(), time.perf_counter_ns)
    try:
        text = ask(server.address, "/metrics").text
        assert 'kafka_consumergroup_lag{group="g",partition="0",topic="t"} 4.0' in text
        assert offsets_ahead(text) == {
            TopicPartition("t", 0): OffsetsAhead(17, 4),
            TopicPartition("t", 1): OffsetsAhead(0, 3),
        }
        for name in ("records", "batches", "aborts", "dead_letters"):
            assert f"tailrace_{name}_total" in text
    finally:
        server.close()
        metrics.POSITION.clear()
        metrics.LAG.clear()


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(TailraceError, match="TAILRACE_HEALTH_PORT to a free port"):
            HealthServer("127.0.0.1", taken.getsockname()[1], Status(), time.perf_counter_ns)


# Exit codes ---


class Loop(Status):
    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self.run = do


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(service, "log_as_json", lambda name, level: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    return monkeypatch


def raising(error: Exception) -> Callable[[Service], Loop]:
    def run() -> None:
        raise error

    return lambda _: Loop(run)


def test_a_service_that_is_told_to_end_exits_with_0(environment: pytest.MonkeyPatch) -> None:
    seen: list[Service] = []

    def make(service: Service) -> Loop:
        seen.append(service)
        return Loop(lambda: None)

    run_service("scorer", make)
    assert seen[0].group == "tailrace.scorer"
    assert seen[0].connection.bootstrap == "127.0.0.1:1"
    assert isinstance(seen[0].stop, threading.Event)


@pytest.mark.parametrize("error", [TailraceError("no way on"), Fatal("fenced"), ZeroDivisionError()])
def test_a_service_that_cannot_go_on_exits_with_1(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_service("scorer", raising(error))
    assert ended.value.code == 1
    assert caplog.records[-1].levelname == "CRITICAL"


def test_a_wrong_setting_exits_with_2(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("TAILRACE_MAX_BATCH", "0")
    with pytest.raises(SystemExit) as ended:
        run_service("scorer", raising(AssertionError()))
    assert ended.value.code == 2
    assert "TAILRACE_MAX_BATCH=0" in caplog.text


# Quarantine ---


def test_what_is_quarantined_goes_to_dead_letters_with_an_alert() -> None:
    from tailrace.testing.signed_records import records

    by, other = (records(MemoryRegistry(), name) for name in ("scorer", "rollout"))
    message = PlainMessage("credit.requests", 2, 7, b"v", b"k", timestamp_ms=1_700_000_000_000)
    output = PoisonRecordQuarantine("scorer", by)(message, "ZeroDivisionError: /")
    [letter] = output.dead_letters
    assert (letter.topic, letter.message, letter.code) == ("credit.dead-letters", message, "quarantined")
    [record] = output.records
    alert = by.codec.decode("Alert", record.value)
    assert alert["kind"] == "quarantined"
    assert alert["source"] == {"topic": "credit.requests", "partition": 2, "offset": 7}
    assert "credit.requests/2/7" in alert["summary"]
    assert alert["at"] == 1_700_000_000_000

    command = PlainMessage("tailrace.commands", 0, 1, b"v")
    assert PoisonRecordQuarantine("rollout", other)(command, "?").dead_letters == []
