"""The service of CONTRIBUTING.md is everywhere: run in a copy of the tree to which only its room and its entry came."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from ruamel.yaml import YAML
from tailrace.notifier import app

from tailrace.kafka_access.grants import Grant, grants
from tailrace.runtime.service import Service
from tailrace.services import PROGRAMS, SERVICES
from tailrace.streaming.backends.kafka.topics import topics_read_by
from tailrace.testing.memory_registry import MemoryRegistry

NAME = "notifier"
assert NAME in SERVICES
assert PROGRAMS[NAME] == "tailrace.notifier.app"
assert topics_read_by(NAME) == {"tailrace.alerts"}
assert Grant(NAME, "READ", "TOPIC", "tailrace.alerts") in grants([])

compose = YAML(typ="safe").load(Path("compose.yaml").read_text())
assert compose["services"][NAME]["command"] == ["run", NAME]
assert compose["secrets"][f"kafka-{NAME}"] == {"environment": "KAFKA_PASSWORD_NOTIFIER"}
assert f'"{NAME}:8080"' in Path("observability/prometheus.yml").read_text()
assert " NOTIFIER " in Path("docs/production.md").read_text().replace("\\\n", "")
assert (
    f"| [{NAME}](../services/tailrace/{NAME}/README.md) | alerts |"
    in Path("docs/architecture.md").read_text()
)
assert f"| {NAME} |" in Path("docs/kafka-users.md").read_text()
assert f"{NAME} reads tailrace.alerts" in Path("contracts/asyncapi.yaml").read_text()

stop = Event()
alert = {"summary": "credit drifts", "alert_id": "a" * 32}


class Reader:
    """One alert, then the end of the process."""

    def __init__(self, _connection: Any, topic: str, *, from_end: bool) -> None:
        assert (topic, from_end) == ("tailrace.alerts", True)

    def poll(self, _seconds: float) -> list[Any]:
        stop.set()
        return [alert]

    def close(self) -> None:
        alert["closed"] = "yes"


nothing: Any = SimpleNamespace()
records: Any = SimpleNamespace(of=lambda _connection: SimpleNamespace(read=lambda message: message))
service = Service(NAME, nothing, nothing, MemoryRegistry(), stop)  # type: ignore[arg-type]
with patch.object(app, "TopicReader", Reader), patch.object(app, "ControlRecords", records):
    with patch.object(app.log, "warning") as said:
        notifier = app.Notifier(service)
        notifier.run()
    with patch.object(app, "run_service") as started:
        app.main()
assert said.call_args.args == ("credit drifts",)
assert notifier.waiting is None
assert alert["closed"] == "yes"
started.assert_called_once_with(NAME, app.Notifier)
