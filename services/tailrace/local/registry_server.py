"""A schema registry with Confluent's REST interface and error codes, for Avro, its state in Kafka.

It stands in where there is none; with ``SCHEMA_REGISTRY_URL`` another one is used and this is not started.
What it does not do it says: references, other formats, import mode, and permanent deletion, since the records
that were written with a schema may still be there.

API reference: https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace.access.door import Door
from tailrace.access.home_servers import REGISTRY, open_door
from tailrace.confinement.profiles import hold
from tailrace.connection import connect, home_dir
from tailrace.errors import Unavailable
from tailrace.local.confined import registry_limits
from tailrace.local.ports import require_free
from tailrace.local.registry_api import SchemasApi, SubjectsApi
from tailrace.local.registry_door import ADMINISTERING, REGISTERING, route, rules
from tailrace.local.registry_log import RegistryLog
from tailrace.local.registry_requests import ApiError, error_answer, json_answer
from tailrace.local.registry_settings import SettingApi
from tailrace.local.registry_state import LEVEL, MODE


def serve(kafka: Mapping[str, str], home: Path, url: str) -> None:
    """Serves until SIGTERM or SIGINT, on the loopback interface unless the URL names another address, in a process
    that the kernel confines.

    Args:
        kafka: librdkafka options, ``bootstrap.servers`` among them.
        home: whose tokens are let in; made where it has none.
        url: how clients address it.

    Raises:
        TailraceError: the port is taken.
    """
    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port or 8081
    require_free(port, "the schema registry", host)
    open_door(home, REGISTRY, url)
    # Before the client of Kafka starts threads: only then all of the process is confined.
    print(hold(registry_limits(home.absolute(), port, os.environ)), file=sys.stderr, flush=True)
    log = RegistryLog(kafka)
    try:
        uvicorn.run(application(log, home, host), host=host, port=port, log_level="warning", access_log=False)
    finally:
        log.close()


def main() -> None:
    """Serves at ``SCHEMA_REGISTRY_URL``, for the home in ``TAILRACE_HOME``."""
    connection = connect(user="registry")
    serve(connection.kafka, home_dir(), connection.registry)


def application(log: RegistryLog, home: Path, host: str | None = None) -> Starlette:
    """The ASGI application over this log, for who has a token of this home.

    Args:
        host: the name under which it listens, beside those of the loopback interface.
    """
    schemas, subjects = SchemasApi(log), SubjectsApi(log)
    level = SettingApi(log, LEVEL, "compatibility", "compatibility level", 40408, 42203)
    mode = SettingApi(log, MODE, "mode", "mode", 40409, 42204)
    routes = [
        # Who may: reading and looking up all, registering applications too, all else services alone.
        route("/", lambda request: json_answer({})),
        route("/livez", lambda request: PlainTextResponse("ok\n"), users=None),
        route("/readyz", schemas.ready, users=None),
        route("/v1/metadata/id", schemas.clusters),
        route("/contexts", schemas.contexts),
        route("/schemas", schemas.schemas),
        route("/schemas/types", schemas.types),
        route("/schemas/ids/{id}", schemas.schema),
        route("/schemas/ids/{id}/schema", schemas.schema_only),
        route("/schemas/ids/{id}/subjects", schemas.schema_subjects),
        route("/schemas/ids/{id}/versions", schemas.schema_versions),
        route("/schemas/guids/{guid}", schemas.guid),
        route("/schemas/guids/{guid}/ids", schemas.guid_ids),
        route("/subjects", subjects.subjects),
        route("/subjects/{subject}", subjects.look_up, "POST"),
        route("/subjects/{subject}", subjects.delete_subject, "DELETE", ADMINISTERING),
        route("/subjects/{subject}/metadata", subjects.latest_with_metadata),
        route("/subjects/{subject}/versions", subjects.versions),
        route("/subjects/{subject}/versions", subjects.register, "POST", REGISTERING),
        route("/subjects/{subject}/versions/{version}", subjects.version),
        route("/subjects/{subject}/versions/{version}", subjects.delete_version, "DELETE", ADMINISTERING),
        route("/subjects/{subject}/versions/{version}/schema", subjects.version_schema),
        route("/subjects/{subject}/versions/{version}/referencedby", subjects.referenced_by),
        route("/compatibility/subjects/{subject}/versions", subjects.check, "POST"),
        route("/compatibility/subjects/{subject}/versions/{version}", subjects.check, "POST"),
        route("/config", level.show),
        route("/config", level.set, "PUT", ADMINISTERING),
        route("/config/{subject}", level.show),
        route("/config/{subject}", level.set, "PUT", ADMINISTERING),
        route("/config/{subject}", level.delete, "DELETE", ADMINISTERING),
        route("/mode", mode.show),
        route("/mode", mode.set, "PUT", ADMINISTERING),
        route("/mode/{subject}", mode.show),
        route("/mode/{subject}", mode.set, "PUT", ADMINISTERING),
        route("/mode/{subject}", mode.delete, "DELETE", ADMINISTERING),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Door, home=home, rules=rules(host)), Middleware(_AsSent)],
        exception_handlers={
            ApiError: lambda request, error: error_answer(error.code, error.message),
            Unavailable: lambda request, error: error_answer(50001, str(error)),
            HTTPException: lambda request, error: error_answer(error.status_code, error.detail),
        },
    )


class _AsSent:
    """Routes by the path as it was sent: a subject's name may have a slash in it, as %2F."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            scope = {**scope, "path": scope["raw_path"].decode("ascii")}
        await self._app(scope, receive, send)


if __name__ == "__main__":
    main()
