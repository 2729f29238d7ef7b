"""What runs in a home, and how it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tailrace.clickhouse.client import ClickHouse
from tailrace.clickhouse.history import lacking, remedies
from tailrace.clickhouse.migrations import read_migrations, tables_of
from tailrace.connection import Connection, connect
from tailrace.errors import TailraceError, Unavailable
from tailrace.local.deaths import report
from tailrace.local.health import ask, lag, reason
from tailrace.local.home import Home
from tailrace.local.leftovers import is_running, left_running
from tailrace.local.room import advice, shortages
from tailrace.services import SERVICES


def status(
    home: Home, ask_models: Callable[[Connection], list[dict[str, Any]] | None] = lambda _: None
) -> dict[str, Any]:
    """Asks everything that runs in a home.

    Args:
        ask_models: gives the models in force, each with its ``tables``; None where nobody can say.

    Returns:
        ``home``, ``ready``, ``kept``, ``short``, then ``kafka``, ``registry`` and ``clickhouse``, each with address,
        healthy and (where it runs here) pid, restarts and deaths, and ClickHouse with the tables that lack rows, and
        why; ``services``, a list with name, pid, healthy, waiting, models_waiting, lag, restarts, deaths and
        address. ``waiting`` says why a service is not ready, None where it is; ``models_waiting`` why requests to a
        model wait, by model; ``lag`` counts records still to be read, None where the service
        does not say. ``deaths`` are those of `deaths.report`; what is in a crash loop is not healthy. ``short`` lists
        what the machine is short of, as `room.Shortage`. ``kept`` is False where nobody brings back what dies: the
        supervisor was killed. ``models`` are those that were asked for.

    Raises:
        TailraceError: nothing runs in this home.
    """
    kept = home.holder() is not None
    if not kept and not left_running(home):
        raise TailraceError(f"nothing runs in {home}: start everything with `tailrace up --detach`")
    short = shortages(home.root, _pids(home))
    if not home.addresses.exists():
        full = f". {advice(short)}" if short else ""
        raise TailraceError(f"Tailrace is starting in {home}, or stopping: ask again in a moment{full}")
    ours = {process["name"]: process for process in home.processes()}
    connection = connect(env={}, home=home.root)
    with ThreadPoolExecutor(8) as pool:
        kafka = pool.submit(_kafka, connection, ours.get("kafka", {}))
        registry = pool.submit(_server, connection.registry, "/readyz", ours.get("registry", {}))
        asked = pool.submit(ask_models, connection)
        services = list(pool.map(_service, (ours[name] for name in SERVICES if name in ours)))
        models = asked.result()
        clickhouse = _clickhouse(connection, ours.get("clickhouse", {}), models or [])
    return {
        "home": str(home.root),
        "ready": home.read(home.state).get("ready", False),
        "kept": kept,
        "short": [shortage._asdict() for shortage in short],
        "kafka": kafka.result(),
        "registry": registry.result(),
        "clickhouse": clickhouse,
        "services": services,
        "models": models,
    }


def _pids(home: Home) -> dict[str, int]:
    """Of the supervisor and of all that it has started, by name."""
    pids = {process["name"]: process["pid"] for process in home.processes() if is_running(process)}
    return pids | ({"supervisor": holder} if (holder := home.holder()) else {})


def _kafka(connection: Connection, ours: Mapping[str, Any]) -> dict[str, Any]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        with AdminClient({**connection.kafka, "log_level": 0}) as admin:
            brokers = admin.list_topics(timeout=3).brokers
    except KafkaException:
        brokers = {}
    return {"address": connection.bootstrap} | _process(ours, bool(brokers))


def _server(address: str, path: str, ours: Mapping[str, Any]) -> dict[str, Any]:
    answer = ask(address, path)
    # A server that is given may want a credential even for this, or not know it; then that it answers says enough.
    healthy = answer.ok if ours else answer.status is not None and answer.status < 500
    return {"address": address} | _process(ours, healthy)


def _clickhouse(
    connection: Connection, ours: Mapping[str, Any], models: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    server = _server(connection.clickhouse or "", "/ping", ours)
    if not server["healthy"]:
        return server
    try:
        tables = {*tables_of(read_migrations()), *(table for model in models for table in model["tables"])}
        lacks = lacking(ClickHouse(connection.clickhouse or "", 3.0, connection.clickhouse_auth), tables)
    except (Unavailable, TailraceError) as away:
        return server | {"waiting": str(away)}
    return server | {"lacking": lacks, "waiting": "; ".join(remedies(lacks)) or None}


def _service(ours: Mapping[str, Any]) -> dict[str, Any]:
    address, deaths = ours["address"], ours.get("deaths")
    alive = ask(address, "/livez")
    waiting = reason(ask(address, "/readyz") if alive.ok else alive)
    if alive.status is None and deaths and not is_running(ours):
        waiting = deaths["why"]  # says more than that nobody listens at its address
    return {
        "name": ours["name"],
        "waiting": waiting,
        "lag": lag(ask(address, "/metrics").text) if alive.ok else None,
        "address": address,
    } | _process(ours, alive.ok)


def _process(ours: Mapping[str, Any], answers: bool) -> dict[str, Any]:
    """What is known of a process; one that is not ours is healthy where it answers."""
    if not ours:
        return {"healthy": answers}
    deaths = report(ours.get("deaths"), time.time())
    healthy = answers and not (deaths and deaths["crash_loop"])
    return {"healthy": healthy, "pid": ours["pid"], "restarts": ours["restarts"], "deaths": deaths}
