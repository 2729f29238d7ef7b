"""What runs in a home, and how it is."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tailrace.kit.clickhouse import ClickHouse
from tailrace.kit.connection import Connection, connect
from tailrace.kit.errors import Retry, TailraceError
from tailrace.kit.history import lacking
from tailrace.local.health import ask, lag, reason
from tailrace.local.home import Home
from tailrace.services import SERVICES


def status(home: Home) -> dict[str, Any]:
    """Asks everything that runs in a home.

    Returns:
        ``home``, ``ready``, then ``kafka``, ``registry`` and ``clickhouse``, each with address, healthy and
        (where it runs here) pid and restarts, and ClickHouse with the tables that lack rows, and why;
        ``services``, a list with name, pid, healthy, waiting, lag,
        restarts and address. ``waiting`` says why a service is not ready, None where it is; ``lag`` counts
        records still to be read, None where the service does not say.

    Raises:
        TailraceError: nothing runs in this home.
    """
    if home.holder() is None:
        raise TailraceError(f"nothing runs in {home}: start everything with `tailrace up --detach`")
    if not home.addresses.exists():
        raise TailraceError(f"Tailrace is starting in {home}, or stopping: ask again in a moment")
    state = home.read(home.state)
    ours = {process["name"]: process for process in state.get("processes", [])}
    connection = connect(env={}, home=home.root)
    with ThreadPoolExecutor(8) as pool:
        kafka = pool.submit(_kafka, connection, ours.get("kafka", {}))
        registry = pool.submit(_server, connection.registry, "/readyz", ours.get("registry", {}))
        clickhouse = pool.submit(_clickhouse, connection, ours.get("clickhouse", {}))
        services = list(pool.map(_service, (ours[name] for name in SERVICES if name in ours)))
    return {
        "home": str(home.root),
        "ready": state.get("ready", False),
        "kafka": kafka.result(),
        "registry": registry.result(),
        "clickhouse": clickhouse.result(),
        "services": services,
    }


def _kafka(connection: Connection, ours: Mapping[str, Any]) -> dict[str, Any]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        with AdminClient({**connection.kafka, "log_level": 0}) as admin:
            brokers = admin.list_topics(timeout=3).brokers
    except KafkaException:
        brokers = {}
    return {"address": connection.bootstrap, "healthy": bool(brokers)} | _process(ours)


def _server(address: str, path: str, ours: Mapping[str, Any]) -> dict[str, Any]:
    answer = ask(address, path)
    # A server that is given may want a credential even for this, or not know it; then that it answers says enough.
    healthy = answer.ok if ours else answer.status is not None and answer.status < 500
    return {"address": address, "healthy": healthy} | _process(ours)


def _clickhouse(connection: Connection, ours: Mapping[str, Any]) -> dict[str, Any]:
    found = _server(connection.clickhouse or "", "/ping", ours)
    if not found["healthy"]:
        return found
    try:
        lacks = lacking(ClickHouse(connection.clickhouse or "", 3.0, connection.clickhouse_auth))
    except (Retry, TailraceError) as away:
        return found | {"waiting": str(away)}
    said = [
        f"{table} lacks rows, since {why}: `tailrace rebuild {table}`" for table, why in sorted(lacks.items())
    ]
    return found | {"lacking": lacks, "waiting": "; ".join(said) or None}


def _service(ours: Mapping[str, Any]) -> dict[str, Any]:
    address = ours["address"]
    alive = ask(address, "/livez")
    return {
        "name": ours["name"],
        "pid": ours["pid"],
        "healthy": alive.ok,
        "waiting": reason(ask(address, "/readyz")) if alive.ok else alive.text,
        "lag": lag(ask(address, "/metrics").text) if alive.ok else None,
        "restarts": ours["restarts"],
        "address": address,
    }


def _process(ours: Mapping[str, Any]) -> dict[str, Any]:
    return {name: ours[name] for name in ("pid", "restarts") if name in ours}
