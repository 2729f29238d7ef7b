"""Where Kafka, the schema registry and ClickHouse are. Standard library only: applications import this too.

Each address comes from its environment variable; where that is missing, from the home of a running
``tailrace up`` (``TAILRACE_HOME``, default ``./.tailrace``), which writes its addresses to ``run/addresses.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tailrace.kit.errors import TailraceError

ADDRESSES = Path("run", "addresses.json")

# The variables are those that Kafka images, Confluent's clients and ClickHouse users already know.
_KAFKA_OPTIONS = {
    "KAFKA_SECURITY_PROTOCOL": "security.protocol",
    "KAFKA_SASL_MECHANISM": "sasl.mechanism",
    "KAFKA_SASL_USERNAME": "sasl.username",
    "KAFKA_SASL_PASSWORD": "sasl.password",
    "KAFKA_SSL_CA_LOCATION": "ssl.ca.location",
    "KAFKA_SSL_CERTIFICATE_LOCATION": "ssl.certificate.location",
    "KAFKA_SSL_KEY_LOCATION": "ssl.key.location",
    "KAFKA_SSL_KEY_PASSWORD": "ssl.key.password",
}
_SECRETS = ("KAFKA_SASL_PASSWORD", "KAFKA_SSL_KEY_PASSWORD")


@dataclass(frozen=True)
class Connection:
    """Addresses, and how to authenticate.

    Attributes:
        kafka: librdkafka options shared by every client, ``bootstrap.servers`` among them.
        registry: base URL of a registry with Confluent's REST interface.
        registry_auth: ``user:password`` for the registry, or None.
        clickhouse: URL of ClickHouse's HTTP interface, with user, password and database where needed, or None.
        home: the home whose keys count and sign; None for the one that the environment names.
    """

    kafka: dict[str, str] = field(repr=False)
    registry: str
    registry_auth: str | None = field(default=None, repr=False)
    clickhouse: str | None = field(default=None, repr=False)
    home: Path | None = None

    @property
    def bootstrap(self) -> str:
        return self.kafka["bootstrap.servers"]


def home_dir(env: Mapping[str, str] | None = None) -> Path:
    return Path((env or os.environ).get("TAILRACE_HOME", "./.tailrace"))


def running_addresses(home: Path) -> dict[str, str]:
    """The addresses that a running ``tailrace up`` wrote into its home; empty where none runs."""
    try:
        found = json.loads((home / ADDRESSES).read_text())
    except FileNotFoundError:
        return {}
    return {str(k): str(v) for k, v in found.items()}


def connect(env: Mapping[str, str] | None = None, home: Path | None = None) -> Connection:
    """Reads the environment, then the running home.

    Raises:
        TailraceError: no Kafka or registry address is to be had.
    """
    given: Mapping[str, str] = os.environ if env is None else env
    home = home or home_dir(given)
    values = {**running_addresses(home), **{k: v for k, v in given.items() if v}}
    for name in _SECRETS:
        if f"{name}_FILE" in values:
            values[name] = Path(values[f"{name}_FILE"]).read_text().strip()
    for needed in ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL"):
        if needed not in values:
            raise TailraceError(
                f"{needed} is not set and nothing runs in {home}: start everything with `tailrace up --detach`, "
                f"or set {needed} to use what you have"
            )
    kafka = {"bootstrap.servers": values["KAFKA_BOOTSTRAP_SERVERS"]}
    kafka |= {option: values[name] for name, option in _KAFKA_OPTIONS.items() if name in values}
    return Connection(
        kafka=kafka,
        registry=values["SCHEMA_REGISTRY_URL"].rstrip("/"),
        registry_auth=values.get("SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"),
        clickhouse=values.get("CLICKHOUSE_URL"),
        home=home,
    )
