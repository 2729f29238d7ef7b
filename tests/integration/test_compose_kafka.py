"""Kafka's settings in compose.yaml, on Kafka itself: it starts with them, and its users are made as there.

Docker does not run where the tests do, so the variables are turned into settings here, as the image does, and addresses
and folders are this machine's.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from ruamel.yaml import YAML

from tailrace.kafka_access.grants import USERS
from tailrace.local.kafka import LocalKafka
from tailrace.local.kafka_security import client_options
from tailrace.local.ports import HOST, free_port
from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics

ROOT = Path(__file__).parents[2]


def _setting(variable: str) -> str:
    """The image's rule: ``___`` is a hyphen, ``__`` an underscore, ``_`` a dot."""
    name = variable.removeprefix("KAFKA_").lower()
    return name.replace("___", "-").replace("__", "\0").replace("_", ".").replace("\0", "_")


class ComposedKafka(LocalKafka):
    """The broker of compose.yaml, reached as its administrator."""

    def __init__(self, data: Path, passwords: Path) -> None:
        self.ports = {port: free_port() for port in ("9091", "9092", "29092", "9093")}
        super().__init__(data, port=self.ports["9091"])
        self._passwords = passwords

    def _write_config(self) -> Path:
        compose = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())
        variables = dict(compose["services"]["kafka"]["environment"])
        settings = {_setting(name): self._here(value) for name, value in variables.items()}
        settings["log.dirs"] = str(self.data / "logs")
        self.data.mkdir(parents=True, exist_ok=True)
        path = self.data / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return path

    def _here(self, value: str) -> str:
        value = value.replace("$$", "$").replace("/run/secrets", str(self._passwords))
        for name in ("kafka", "localhost", "://"):
            for port, ours in self.ports.items():
                ours_at = f"{HOST}:{ours}"
                value = value.replace(f"{name}:{port}", f"://{ours_at}" if name == "://" else ours_at)
        return value

    def options(self, user: str) -> dict[str, str]:
        login = client_options(self.bootstrap, user, (self._passwords / "kafka-password").read_text())
        return login | {"sasl.mechanism": "PLAIN"}


def test_kafka_starts_with_these_settings_and_gets_its_users(tmp_path: Path) -> None:
    passwords = {user: secrets.token_hex(32) for user in USERS}
    folder = tmp_path / "secrets"
    folder.mkdir()
    for user, password in {**passwords, "kafka-password": secrets.token_hex(32)}.items():
        (folder / user).write_text(password)
    kafka = ComposedKafka(tmp_path / "kafka", folder)
    try:
        kafka.start()
        done = subprocess.run(
            [sys.executable, "-m", "tailrace.cli", "run", "kafka-users"],
            env=os.environ
            | {
                "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
                "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                "KAFKA_SASL_MECHANISM": "PLAIN",
                "KAFKA_SASL_USERNAME": "admin",
                "KAFKA_SASL_PASSWORD_FILE": str(folder / "kafka-password"),
                "TAILRACE_KAFKA_PASSWORDS": str(folder),
                "TAILRACE_HOME": str(tmp_path / "home"),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        inside, outside = (f"{HOST}:{kafka.ports[port]}" for port in ("9092", "29092"))
        assert not ensure_topics(client_options(inside, "owner", passwords["owner"]), control_topics())
        assert _write(client_options(inside, "rollout", passwords["rollout"])) is None
        refused = _write(client_options(outside, "application", passwords["application"]))
        assert refused is not None
        assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        for address in (inside, outside, kafka.bootstrap):
            with pytest.raises(KafkaException):
                AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=2)
    finally:
        kafka.stop()


def _write(options: dict[str, str]) -> KafkaError | None:
    outcome: list[Any] = []
    producer = Producer({**options, "log_level": 0})
    producer.produce("tailrace.rollouts", b"one", on_delivery=lambda error, _: outcome.append(error))
    assert producer.flush(30) == 0
    error: KafkaError | None = outcome[0]
    return error
