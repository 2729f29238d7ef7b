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

from tailrace.kit.addresses import credentials_in, without_credentials
from tailrace.kit.credentials import OWNER
from tailrace.kit.doors import CLICKHOUSE, REGISTRY, Auth, Login
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
        registry_auth: ``user:password`` for the registry, or what gives it, or None.
        clickhouse: URL of ClickHouse's HTTP interface, with user, password and database where needed, or None.
        clickhouse_auth: what gives ``user:password`` for a ClickHouse of the home; None takes those in the URL.
    """

    kafka: dict[str, str] = field(repr=False)
    registry: str
    registry_auth: Auth = field(default=None, repr=False)
    clickhouse: str | None = field(default=None, repr=False)
    clickhouse_auth: Auth = field(default=None, repr=False)

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


def connect(env: Mapping[str, str] | None = None, home: Path | None = None, user: str = OWNER) -> Connection:
    """Reads the environment, then the running home.

    Registry and ClickHouse are sent the home's token of the user where they are the home's own (see `doors`), even
    where the environment says other credentials; else those.

    Args:
        user: as whom: a user of `credentials`, or a service's name.

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
    registry, clickhouse = values["SCHEMA_REGISTRY_URL"], values.get("CLICKHOUSE_URL")
    other = values.get("SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO") or credentials_in(registry)
    registry = without_credentials(registry).rstrip("/")
    return Connection(
        kafka=kafka,
        registry=registry,
        registry_auth=Login(home, REGISTRY, registry, user, other),
        clickhouse=clickhouse,
        clickhouse_auth=clickhouse and Login(home, CLICKHOUSE, clickhouse, user, credentials_in(clickhouse)),
    )
