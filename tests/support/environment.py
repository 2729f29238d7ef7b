"""The environment under which a program that has a home of its own finds a running stack, and is let in."""

from __future__ import annotations

from tailrace.access.home_servers import login, with_userinfo
from tailrace.connection import Connection


def environment(connection: Connection, database: str | None = None) -> dict[str, str]:
    """As variables; with a database, ClickHouse's too."""
    variables = {"KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap, "SCHEMA_REGISTRY_URL": connection.registry}
    if registry := login(connection.registry_auth):
        variables["SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"] = registry
    if connection.home is not None:
        variables["TAILRACE_HOME"] = str(connection.home)
    if database is not None:
        variables["CLICKHOUSE_URL"] = clickhouse_url(connection, database)
    return variables


def clickhouse_url(connection: Connection, database: str) -> str:
    assert connection.clickhouse
    auth = login(connection.clickhouse_auth)
    return f"{with_userinfo(connection.clickhouse, auth) if auth else connection.clickhouse}/{database}"
