"""What runs in a home, and how it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tailrace.addresses import CLICKHOUSE_PORTS, without_credentials
from tailrace.avro.registry import RegistryClient
from tailrace.clickhouse.client import ClickHouse
from tailrace.clickhouse.history import lacking, remedies
from tailrace.clickhouse.migrations import read_migrations, tables_of
from tailrace.connection import Connection, connect_to_running
from tailrace.contracts.records.lanes import ALERTS
from tailrace.errors import TailraceError, Unavailable
from tailrace.local.deaths import report
from tailrace.local.health import HealthAnswer, ask, reason
from tailrace.local.home import Home
from tailrace.local.lag import count_records, offsets_ahead
from tailrace.local.leftovers import is_running, left_running
from tailrace.local.room import advice, shortages
from tailrace.services import SERVICES

_NO_LAG = {"lag": None, "lag_counted": None}


def status(
    home: Home, ask_models: Callable[[Connection], list[dict[str, Any]] | None] = lambda _: None
) -> dict[str, Any]:
    """Asks everything that runs in a home.

    Args:
        ask_models: gives the models in force, each with its ``tables``; None where nobody can say.

    Returns:
        ``home``, ``ready``, ``kept``, ``short``, then ``kafka``, ``registry`` and ``clickhouse``, each with address,
        healthy and (where it runs here) pid, restarts and deaths, and ClickHouse with the tables that lack rows, and
        why; ``services``, a list with name, pid, healthy, waiting, models_waiting, lag, lag_counted, restarts, deaths
        and address. ``waiting`` says why a service is not ready, None where it is; ``models_waiting`` why requests to a
        model wait, by model; ``lag`` counts records still to be read, neither watermark records nor transaction
        markers, None where the service does not say; ``lag_counted`` is False where it is estimated by the first of
        very many. ``deaths`` are those of `deaths.report`; what is in a crash loop is not healthy. ``short`` lists what
        the machine is short of, as `room.Shortage`. ``kept`` is False where nobody brings back what dies: the
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
    connection = connect_to_running(home.root)
    with ThreadPoolExecutor(8) as pool:
        kafka = pool.submit(_kafka, connection, ours.get("kafka", {}))
        registry = pool.submit(_registry, connection, ours.get("registry", {}))
        asked = pool.submit(ask_models, connection)
        # Whoever would count records of a Kafka that is away waits for it in vain.
        counting = connection if kafka.result()["healthy"] else None
        asked_of = [ours[name] for name in SERVICES if name in ours]
        services = list(pool.map(partial(_service, counting), asked_of))
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


def _registry(connection: Connection, ours: Mapping[str, Any]) -> dict[str, Any]:
    """Of one that is not ours, whether it answers who has the environment's credentials."""
    address = connection.registry
    if ours:
        return {"address": address} | _process(ours, ask(address, "/readyz").ok)
    try:
        RegistryClient(address, connection.registry_auth, timeout=3.0).latest(f"{ALERTS}-value")
    except (Unavailable, TailraceError) as away:
        return {"address": address, "waiting": str(away)} | _process(ours, False)
    return {"address": address} | _process(ours, True)


def _clickhouse(
    connection: Connection, ours: Mapping[str, Any], models: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    address = without_credentials(connection.clickhouse or "")
    answer = ask(address, "/ping", usual_ports=CLICKHOUSE_PORTS)
    # A server that is given may want a credential even for this, or not know it; then that it answers says enough.
    healthy = answer.ok if ours else answer.status is not None and answer.status < 500
    server = {"address": address} | _process(ours, healthy)
    if not healthy:
        return server
    try:
        tables = {*tables_of(read_migrations()), *(table for model in models for table in model["tables"])}
        lacks = lacking(ClickHouse(connection.clickhouse or "", 3.0, connection.clickhouse_auth), tables)
    except (Unavailable, TailraceError) as away:
        return server | {"waiting": str(away)}
    return server | {"lacking": lacks, "waiting": "; ".join(remedies(lacks)) or None}


def _service(connection: Connection | None, ours: Mapping[str, Any]) -> dict[str, Any]:
    address, deaths = ours["address"], ours.get("deaths")
    alive = ask(address, "/livez")
    waiting = reason(ask(address, "/readyz") if alive.ok else alive)
    if alive.status is None and deaths and not is_running(ours):
        waiting = deaths["why"]  # says more than that nobody listens at its address
    return {
        "name": ours["name"],
        "waiting": waiting,
        **(_lag(connection, ask(address, "/metrics")) if alive.ok else _NO_LAG),
        "address": address,
    } | _process(ours, alive.ok)


def _lag(connection: Connection | None, metrics: HealthAnswer) -> dict[str, Any]:
    ahead = offsets_ahead(metrics.text) if metrics.ok else None
    if ahead is None:
        return _NO_LAG
    lag = count_records(connection, ahead)
    return {"lag": lag.records, "lag_counted": lag.is_counted}


def _process(ours: Mapping[str, Any], answers: bool) -> dict[str, Any]:
    """What is known of a process; one that is not ours is healthy where it answers."""
    if not ours:
        return {"healthy": answers}
    deaths = report(ours.get("deaths"), time.time())
    healthy = answers and not (deaths and deaths["crash_loop"])
    return {"healthy": healthy, "pid": ours["pid"], "restarts": ours["restarts"], "deaths": deaths}
