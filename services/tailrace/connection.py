"""Where Kafka, the schema registry and ClickHouse are. Standard library only: applications import this too.

Each address comes from its environment variable; where that is missing, from the home of a running
``tailrace up`` (``TAILRACE_HOME``, default ``./.tailrace``), which writes its addresses to ``run/addresses.json``.
Passwords are in no such file: they come from the environment, or from the home's credentials (access/credentials.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tailrace.access.credentials import KAFKA, OWNER, Credentials
from tailrace.access.home_servers import CLICKHOUSE, REGISTRY, Auth, Login
from tailrace.addresses import credentials_in, kafka_servers, without_credentials
from tailrace.errors import TailraceError, UsageError

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
        home: the home whose keys count and sign; None for the one that the environment names.
    """

    kafka: dict[str, str] = field(repr=False)
    registry: str
    registry_auth: Auth = field(default=None, repr=False)
    clickhouse: str | None = field(default=None, repr=False)
    clickhouse_auth: Auth = field(default=None, repr=False)
    home: Path | None = None

    @property
    def bootstrap(self) -> str:
        return self.kafka["bootstrap.servers"]


def home_dir(env: Mapping[str, str] | None = None) -> Path:
    return Path((env or os.environ).get("TAILRACE_HOME", "./.tailrace"))


def running_addresses(home: Path) -> dict[str, str]:
    """The addresses that a running ``tailrace up`` wrote into its home; empty where none runs, or another's home is."""
    try:
        addresses = json.loads((home / ADDRESSES).read_text())
    except (FileNotFoundError, PermissionError):
        return {}
    return {str(name): str(value) for name, value in addresses.items()}


def connect(env: Mapping[str, str] | None = None, home: Path | None = None, user: str = OWNER) -> Connection:
    """Reads the environment, then the running home.

    Registry and ClickHouse are sent the home's token of the user where they are the home's own (see `doors`), even
    where the environment says other credentials; else those.

    Args:
        user: as whom: a user of `credentials`, or a service's name. At Kafka a user and password in the environment
            win, but for one of the home's own users, whom `tailrace env` has put there for programs other than ours.

    Raises:
        TailraceError: no Kafka or registry address is to be had, or a password may not be read.
        UsageError: KAFKA_BOOTSTRAP_SERVERS is no list of servers, or contradicts KAFKA_SECURITY_PROTOCOL, or that
            needs a KAFKA_SASL_MECHANISM.
    """
    given: Mapping[str, str] = os.environ if env is None else env
    home = home or home_dir(given)
    values = {**running_addresses(home), **{k: v for k, v in given.items() if v}}
    for name in _SECRETS:
        if f"{name}_FILE" in values:
            values[name] = _secret(f"{name}_FILE", values[f"{name}_FILE"])
    values |= _kafka_login(values, Credentials(home), user)
    for needed in ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL"):
        if needed not in values:
            raise TailraceError(
                f"{needed} is not set and nothing runs in {home}: start everything with `tailrace up --detach`, "
                f"or set {needed} to use what you have"
            )
    values |= kafka_address(values)
    if values.get("KAFKA_SECURITY_PROTOCOL", "").upper().startswith("SASL"):
        _require_mechanism(values)
    kafka = {"bootstrap.servers": values["KAFKA_BOOTSTRAP_SERVERS"]}
    kafka |= {option: values[name] for name, option in _KAFKA_OPTIONS.items() if name in values}
    registry, clickhouse = values["SCHEMA_REGISTRY_URL"], values.get("CLICKHOUSE_URL")
    # What stands in the address is meant for it; the variable may be left over from `tailrace env` of another home.
    other = credentials_in(registry) or values.get("SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO")
    registry = without_credentials(registry).rstrip("/")
    return Connection(
        kafka=kafka,
        registry=registry,
        registry_auth=Login(home, REGISTRY, registry, user, other),
        clickhouse=clickhouse,
        clickhouse_auth=clickhouse and Login(home, CLICKHOUSE, clickhouse, user, credentials_in(clickhouse)),
        home=home,
    )


def connect_to_running(home: Path, env: Mapping[str, str] | None = None) -> Connection:
    """A connection to what runs in a home, whatever the environment names: it gives the credentials for those servers
    of others that it has in common with the home, which has written down no password of them.

    Raises:
        TailraceError: as `connect`.
    """
    running = running_addresses(home)
    given = {name: value for name, value in (os.environ if env is None else env).items() if value}
    names: list[str] = []
    if _is_same_kafka(given.get("KAFKA_BOOTSTRAP_SERVERS"), running.get("KAFKA_BOOTSTRAP_SERVERS", "")):
        names += [*_KAFKA_OPTIONS, *(f"{name}_FILE" for name in _SECRETS)]
    for name, more in (
        ("SCHEMA_REGISTRY_URL", ["SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"]),
        ("CLICKHOUSE_URL", []),
    ):
        if name not in given or is_running_at(given[name], running.get(name, "")):
            names += [name, *more]
    return connect({name: given[name] for name in names if name in given}, home)


def is_running_at(given: str, running: str) -> bool:
    """Whether an address from the environment, with its credentials, is one that a home has written down without."""
    return without_credentials(given).rstrip("/") == running.rstrip("/")


def kafka_address(values: Mapping[str, str]) -> dict[str, str]:
    """KAFKA_BOOTSTRAP_SERVERS as every client takes it, and the KAFKA_SECURITY_PROTOCOL that it names.

    Raises:
        UsageError: it is no list of servers, or names another protocol than KAFKA_SECURITY_PROTOCOL does.
    """
    servers, protocol = kafka_servers(values["KAFKA_BOOTSTRAP_SERVERS"])
    if protocol is None:
        return {"KAFKA_BOOTSTRAP_SERVERS": servers}
    other = values.get("KAFKA_SECURITY_PROTOCOL", protocol)
    if other.upper() != protocol:
        raise UsageError(
            f"KAFKA_BOOTSTRAP_SERVERS says {protocol}:// and KAFKA_SECURITY_PROTOCOL says {other}: correct one of them"
        )
    return {"KAFKA_BOOTSTRAP_SERVERS": servers, "KAFKA_SECURITY_PROTOCOL": protocol}


def come_as_oneself(env: MutableMapping[str, str], home: Path) -> None:
    """Takes the login of one of the home's own Kafka users out of an environment, as `connect` would have it, for a
    process that soon can read no password but its own.
    """
    user, password = env.get("KAFKA_SASL_USERNAME"), env.get("KAFKA_SASL_PASSWORD")
    with suppress(PermissionError):  # somebody else's home
        if user and password and Credentials(home).read(KAFKA, user) == password:
            del env["KAFKA_SASL_USERNAME"], env["KAFKA_SASL_PASSWORD"]


def kafka_login_names(env: Mapping[str, str]) -> dict[str, str]:
    """What the environment says of how to log in to Kafka: of secrets only in which files they are."""
    names = (f"{name}_FILE" if name in _SECRETS else name for name in _KAFKA_OPTIONS)
    return {name: env[name] for name in names if env.get(name)}


def environment(home: Path, user: str) -> dict[str, str]:
    """What a program that is not ours needs in its environment to come to what runs in this home, as this user.

    Raises:
        TailraceError: the home's passwords may not be read.
    """
    values = running_addresses(home)
    return values | _kafka_login(values, Credentials(home), user)


def _is_same_kafka(given: str | None, running: str) -> bool:
    return given is None or kafka_servers(given).servers == running


def _require_mechanism(values: Mapping[str, str]) -> None:
    """Clients would each take a default of their own, of which one (GSSAPI) is in none of the libraries here."""
    if "KAFKA_SASL_MECHANISM" not in values:
        raise UsageError(
            f"Kafka is to be reached by {values['KAFKA_SECURITY_PROTOCOL']}, and KAFKA_SASL_MECHANISM is not set: "
            "set it to what the cluster takes, PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
        )


def _secret(name: str, file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise TailraceError(
            f"{name} is {file}, which cannot be read ({reason}): correct it, or set {name.removesuffix('_FILE')}"
        ) from error


def _kafka_login(values: Mapping[str, str], credentials: Credentials, user: str) -> dict[str, str]:
    """The user and password that the home has; nothing where others are given, or a broker would be shown them."""
    if not values.get("KAFKA_SASL_MECHANISM", "").startswith("SCRAM"):
        return {}
    try:
        other = values.get("KAFKA_SASL_USERNAME")
        if other and credentials.read(KAFKA, other) != values.get("KAFKA_SASL_PASSWORD"):
            return {}
        password = credentials.read(KAFKA, user)
    except PermissionError as error:
        if "KAFKA_SASL_PASSWORD" in values:
            return {}  # somebody else's home: they were given to this process for it
        raise TailraceError(
            f"{error.filename} may not be read: only the owner of {credentials.folder.parent} has its passwords. Set "
            "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD to what the owner gives you"
        ) from error
    if password is None:
        raise TailraceError(
            f"{credentials.path(KAFKA, user)} is missing, without which {user} cannot connect to Kafka: "
            "`tailrace down`, then `tailrace up` makes it"
        )
    return {"KAFKA_SASL_USERNAME": user, "KAFKA_SASL_PASSWORD": password}
