"""What a service of a home may touch: its own folders, its own key and password, the ports of what it stands on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tailrace.access.credentials import DIGESTS, HTTP, KAFKA, SERVICES, Credentials
from tailrace.access.home_identity import home_id
from tailrace.access.own_folders import cache_folder, examined_folder, state_folder
from tailrace.access.private_files import make_private
from tailrace.addresses import CLICKHOUSE_PORTS, HTTP_PORTS, http_parts, kafka_servers
from tailrace.confinement.capabilities import give_up_looking_into_others
from tailrace.confinement.landlock import AccessLimits
from tailrace.confinement.profiles import hold, scratch
from tailrace.confinement.system import DEVICES, system_paths
from tailrace.connection import ADDRESSES, come_as_oneself, home_dir, running_addresses
from tailrace.errors import TailraceError
from tailrace.kernels.compiled import keep_compiled_in
from tailrace.local.home import Home
from tailrace.local.ports import HOST
from tailrace.services import TABLE

_EXAMINES = "rollout"
_SCORERS = ("scorer", "shadow-scorer")
_LOCAL = (HOST, "localhost", "::1")
_USUAL_PORTS = {"SCHEMA_REGISTRY_URL": HTTP_PORTS, "CLICKHOUSE_URL": CLICKHOUSE_PORTS}
# Files that the environment names, where they are: secrets and certificates for a Kafka or registry elsewhere.
_FILES = (
    *("KAFKA_SASL_PASSWORD_FILE", "KAFKA_SSL_KEY_PASSWORD_FILE", "KAFKA_SSL_CA_LOCATION"),
    *("KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)


def confine_service(name: str) -> None:
    """Confines this process, which is about to be the service. To be called before what starts threads is imported.

    Raises:
        TailraceError: the home cannot be used, or the kernel refuses.
    """
    home = home_dir().absolute()
    come_as_oneself(os.environ, home)
    # Its semaphores would be files that all of the user's programs share; nothing here uses it.
    os.environ.setdefault("JOBLIB_MULTIPROCESSING", "0")
    try:
        limits = service_limits(home, name, os.environ)
    except OSError as error:
        raise TailraceError(
            f"the folders of {name} in the home {home} cannot be made ({error}): correct its rights or free the disk"
        ) from error
    give_up_looking_into_others()
    hold(limits)


def service_limits(home: Path, name: str, env: Mapping[str, str]) -> AccessLimits:
    """What a service of `tailrace.services` that signs may touch. Makes what folders are missing, since rules are
    about what is there; what is temporary, and what is compiled, is kept in the service's own from here on.

    Raises:
        TailraceError: the home is another version's, or cannot be used.
    """
    home_id(home)  # made at the first call
    own, signers = _own_folders(home, name), home / "keys"
    read = [
        *(signers / who for who in (name, "trusted", "revoked")),
        *_credentials(home, name),
        home / DIGESTS,
    ]
    if name in _SCORERS:
        read.append(examined_folder(home, _EXAMINES))
    for folder in (*own, *read):
        make_private(folder)
    keep_compiled_in(cache_folder(home, name) / "numba")
    return AccessLimits(
        (*own, *DEVICES),
        # Of /proc all: what this process starts has other folders there, and reads itself in them.
        (*system_paths(), Path("/proc"), home / "home.json", home / ADDRESSES, *_given(env), *read),
        _ports(home, env),
        frozenset({int(port) if (port := env.get("TAILRACE_HEALTH_PORT", "")).isdigit() else 0}),
    )


def registry_limits(home: Path, port: int, env: Mapping[str, str]) -> AccessLimits:
    """The registry's, once it has logged in: it signs nothing, and connects to Kafka alone."""
    own = _own_folders(home, "registry")
    for folder in (*own, home / DIGESTS):
        make_private(folder)
    kafka = _own_kafka(home, env)
    connect = None if kafka is None else frozenset({kafka})
    read = (*system_paths(), *_given(env), home / DIGESTS)
    return AccessLimits((*own, *DEVICES), read, connect, frozenset({port}))


def _own_folders(home: Path, name: str) -> tuple[Path, ...]:
    scratch(cache_folder(home, name) / "tmp")
    return (cache_folder(home, name), *((state_folder(home, name),) if TABLE[name].keeps_files else ()))


def _credentials(home: Path, name: str) -> tuple[Path, ...]:
    """The folders of what it logs in with, in which files are replaced."""
    store = Credentials(home)
    return store.path(KAFKA, name).parent, store.path(HTTP, SERVICES).parent


def _given(env: Mapping[str, str]) -> tuple[Path, ...]:
    return tuple(Path(env[name]) for name in _FILES if env.get(name))


def _ports(home: Path, env: Mapping[str, str]) -> frozenset[int] | None:
    """Those of Kafka, registry and ClickHouse; None, which leaves the network as it is, where one of them is
    elsewhere: brokers have other addresses than a cluster's first, and a proxy may be on the way.
    """
    kafka, values = _own_kafka(home, env), _addresses(home, env)
    if kafka is None:
        return None
    ports = {kafka}
    for name, usual in _USUAL_PORTS.items():
        if name in values:
            parts = http_parts(values[name])
            if parts is None or parts.hostname not in _LOCAL:
                return None
            ports.add(parts.port or usual[parts.scheme])
    return frozenset(ports)


def _own_kafka(home: Path, env: Mapping[str, str]) -> int | None:
    """The port of the home's own Kafka; None where the service is for another."""
    given = _addresses(home, env).get("KAFKA_BOOTSTRAP_SERVERS")
    kafka = ("kafka", kafka_servers(given).servers if given else None)
    ports = (int(p["port"]) for p in Home(home).processes() if (p["name"], p["address"]) == kafka)
    return next(ports, None)


def _addresses(home: Path, env: Mapping[str, str]) -> dict[str, str]:
    return {**running_addresses(home), **{name: value for name, value in env.items() if value}}
