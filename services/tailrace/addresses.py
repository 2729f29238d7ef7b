"""Addresses as people write them: with a user and a password, as CLICKHOUSE_URL's, or with a protocol, as Kafka's.

Standard library only: applications import this too.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from tailrace.errors import UsageError

CLICKHOUSE_PORTS = {"http": 8123, "https": 8443}
"""Those of an address that names none. Of a registry's they are HTTP's own."""
HTTP_PORTS = {"http": 80, "https": 443}
KAFKA_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def without_credentials(url: str) -> str:
    """The address alone, to be written, logged and shown: no user, no password, no parameters.

    Errs on the safe side: all before the last ``@`` goes, wherever it stands, since a password may hold anything.
    """
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|", url)
    assert scheme
    rest = url.rpartition("@")[2].removeprefix(scheme[0])
    return scheme[0] + rest.partition("?")[0].partition("#")[0]


def credentials_in(url: str) -> str | None:
    """``user:password`` of the address, the password empty where it names a user alone; None where it has neither."""
    given, at, _ = url.partition("://")[2].rpartition("@")
    user, _, password = given.partition(":")
    return f"{unquote(user)}:{unquote(password)}" if at and given else None


def http_parts(url: str) -> SplitResult | None:
    """The parts of an HTTP address, its credentials apart; None where it is none."""
    try:
        parts = urlsplit(without_credentials(url))
        _ = parts.port  # what is no number is said here
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


class KafkaServers(NamedTuple):
    """``servers`` as every client of Kafka takes them, ``host:port,...``; ``protocol`` where they name one."""

    servers: str
    protocol: str | None


def kafka_servers(given: str) -> KafkaServers:
    """Reads KAFKA_BOOTSTRAP_SERVERS, where each server may be written as a broker's listener: ``SASL_SSL://host:port``.

    Raises:
        UsageError: it names no server, a protocol that Kafka does not have, several protocols, or a password.
    """
    if "@" in given:
        raise UsageError(
            "KAFKA_BOOTSTRAP_SERVERS has a user or a password in it, which Kafka does not read there: set "
            "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD, and leave host:port"
        )
    names = [name.strip() for name in given.split(",") if name.strip()]
    protocols = {name.partition("://")[0].upper() if "://" in name else None for name in names}
    if unknown := sorted(protocol for protocol in protocols if protocol and protocol not in KAFKA_PROTOCOLS):
        raise UsageError(
            f"KAFKA_BOOTSTRAP_SERVERS begins with {unknown[0].lower()}://, which is no protocol of Kafka: write "
            f"host:port, or {', '.join(f'{name}://' for name in KAFKA_PROTOCOLS)} before it"
        )
    servers = [name.rpartition("://")[2].rstrip("/") for name in names]
    if not all(servers) or not servers:
        raise UsageError(f"KAFKA_BOOTSTRAP_SERVERS is {given!r}: write host:port, and commas between several")
    if len(protocols) > 1:
        raise UsageError(
            f"KAFKA_BOOTSTRAP_SERVERS is {given!r}: write one and the same protocol before each server, or none"
        )
    return KafkaServers(",".join(servers), protocols.pop())
