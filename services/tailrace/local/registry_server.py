"""A schema registry with Confluent's REST interface and error codes, for Avro, its state in Kafka.

It stands in where there is none; with ``SCHEMA_REGISTRY_URL`` another one is used and this is not started.
What it does not do it says: references, other formats, import mode, and permanent deletion, since the records
that were written with a schema may still be there.

API reference: https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace.access.door import Door
from tailrace.access.home_servers import REGISTRY, open_door
from tailrace.avro.registry import CONTENT_TYPE
from tailrace.confinement.profiles import hold
from tailrace.connection import connect, home_dir
from tailrace.contracts.records.compatibility import breaks
from tailrace.errors import Unavailable
from tailrace.local.confined import registry_limits
from tailrace.local.ports import require_free
from tailrace.local.registry_door import ADMINISTERING, REGISTERING, route, rules
from tailrace.local.registry_log import Decision, RegistryLog
from tailrace.local.registry_requests import (
    ApiError,
    body_of,
    error_answer,
    flag,
    schema_id_of,
    schema_of,
    subject_of,
    subject_or_none,
)
from tailrace.local.registry_state import (
    LEVEL,
    MODE,
    RegistryState,
    SchemaVersion,
    Setting,
    delete_subject_record,
    schema_key,
    schema_record,
    setting_record,
)

_LATEST = ("latest", "-1")


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
    api = _Api(log)
    level = _SettingApi(log, LEVEL, "compatibility", "compatibility level", 40408, 42203)
    mode = _SettingApi(log, MODE, "mode", "mode", 40409, 42204)
    routes = [
        # Who may: reading and looking up all, registering applications too, all else services alone.
        route("/", lambda request: JSONResponse({})),
        route("/livez", lambda request: PlainTextResponse("ok\n"), users=None),
        route("/readyz", api.ready, users=None),
        route("/schemas/types", lambda request: JSONResponse(["AVRO"])),
        route("/schemas/ids/{id}", api.schema),
        route("/schemas/ids/{id}/schema", api.schema_only),
        route("/schemas/ids/{id}/subjects", api.schema_subjects),
        route("/schemas/ids/{id}/versions", api.schema_versions),
        route("/subjects", api.subjects),
        route("/subjects/{subject}", api.look_up, "POST"),
        route("/subjects/{subject}", api.delete_subject, "DELETE", ADMINISTERING),
        route("/subjects/{subject}/versions", api.versions),
        route("/subjects/{subject}/versions", api.register, "POST", REGISTERING),
        route("/subjects/{subject}/versions/{version}", api.version),
        route("/subjects/{subject}/versions/{version}", api.delete_version, "DELETE", ADMINISTERING),
        route("/subjects/{subject}/versions/{version}/schema", api.version_schema),
        route("/subjects/{subject}/versions/{version}/referencedby", api.referenced_by),
        route("/compatibility/subjects/{subject}/versions", api.check, "POST"),
        route("/compatibility/subjects/{subject}/versions/{version}", api.check, "POST"),
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


class _Api:
    """The endpoints. What may wait for Kafka runs in threads, so that the server goes on answering."""

    def __init__(self, log: RegistryLog) -> None:
        self._log = log

    def ready(self, request: Request) -> Response:
        try:
            self._log.read()
        except Unavailable as reason:
            return PlainTextResponse(f"{reason}\n", 503)
        return PlainTextResponse("ok\n")

    # schemas by id

    def schema(self, request: Request) -> Response:
        return _json({"schema": self._schema(request)})

    def schema_only(self, request: Request) -> Response:
        return _json(json.loads(self._schema(request)))

    def schema_subjects(self, request: Request) -> Response:
        return _json([subject for subject, _ in self._uses(request)])

    def schema_versions(self, request: Request) -> Response:
        uses = self._uses(request)
        return _json([{"subject": subject, "version": version} for subject, version in uses])

    def _uses(self, request: Request) -> list[tuple[str, int]]:
        self._schema(request)
        return self._log.read().uses(schema_id_of(request))

    def _schema(self, request: Request) -> str:
        schema_id = schema_id_of(request)
        # An id never changes its meaning: what is known needs no look at the log, nor Kafka at all.
        schema = self._log.cached().schemas.get(schema_id) or self._log.read().schemas.get(schema_id)
        if schema is None:
            raise ApiError(40403, f"Schema {schema_id} not found")
        return schema

    # subjects and versions

    def subjects(self, request: Request) -> Response:
        prefix = request.query_params.get("subjectPrefix", "")
        names = self._log.read().subjects(flag(request, "deleted"))
        return _json([name for name in names if name.startswith(prefix)])

    def versions(self, request: Request) -> Response:
        versions = _versions(self._log.read(), subject_of(request), flag(request, "deleted"))
        return _json([version.version for version in versions])

    def version(self, request: Request) -> Response:
        return _json(_shown(subject_of(request), self._version(request)))

    def version_schema(self, request: Request) -> Response:
        return _json(json.loads(self._version(request).schema))

    def referenced_by(self, request: Request) -> Response:
        self._version(request)
        return _json([])

    def _version(self, request: Request) -> SchemaVersion:
        return _version(self._log.read(), request, flag(request, "deleted"))

    async def look_up(self, request: Request) -> Response:
        text, deleted = schema_of(await body_of(request)), flag(request, "deleted")
        return await run_in_threadpool(lambda: self._look_up(subject_of(request), text, deleted))

    def _look_up(self, subject: str, text: str, deleted: bool) -> Response:
        for version in reversed(_versions(self._log.read(), subject, deleted)):
            if schema_key(version.schema) == schema_key(text):
                return _json(_shown(subject, version))
        raise ApiError(40403, "Schema not found")

    async def register(self, request: Request) -> Response:
        body = await body_of(request)
        text = schema_of(body)
        if int(body.get("id") or 0) > 0 or int(body.get("version") or 0) > 0:
            raise ApiError(42205, "Ids and versions are given by the registry: there is no import mode")
        return await run_in_threadpool(lambda: self._register(subject_of(request), text))

    def _register(self, subject: str, text: str) -> Response:
        def decide(state: RegistryState) -> Decision[SchemaVersion]:
            versions = list(state.versions(subject))
            if same := [v for v in versions if schema_key(v.schema) == schema_key(text)]:
                return [], same[-1]
            _check_writable(state, subject)
            if problems := breaks(state.value(LEVEL, subject), text, [v.schema for v in versions]):
                lead = (
                    f'Schema being registered is incompatible with an earlier schema for subject "{subject}"'
                )
                raise ApiError(409, f"{lead}, details: {problems}")
            version = SchemaVersion(state.next_version(subject), state.id_of(text), text, False)
            return [schema_record(subject, version)], version

        return _json(_shown(subject, self._log.write(decide)))

    def delete_subject(self, request: Request) -> Response:
        _refuse_permanent(request)
        subject = subject_of(request)

        def decide(state: RegistryState) -> Decision[list[int]]:
            _check_writable(state, subject)
            deleted = [version.version for version in _versions(state, subject, False)]
            return [delete_subject_record(subject, deleted[-1])], deleted

        return _json(self._log.write(decide))

    def delete_version(self, request: Request) -> Response:
        _refuse_permanent(request)
        subject = subject_of(request)

        def decide(state: RegistryState) -> Decision[int]:
            _check_writable(state, subject)
            version = _version(state, request, False)
            return [schema_record(subject, version._replace(deleted=True))], version.version

        return _json(self._log.write(decide))

    # compatibility

    async def check(self, request: Request) -> Response:
        text, verbose = schema_of(await body_of(request)), flag(request, "verbose")
        return await run_in_threadpool(lambda: self._check(request, text, verbose))

    def _check(self, request: Request, text: str, verbose: bool) -> Response:
        state, subject = self._log.read(), subject_of(request)
        one = "version" in request.path_params
        versions = [_version(state, request, False)] if one else list(state.versions(subject))
        problems = breaks(state.value(LEVEL, subject), text, [version.schema for version in versions])
        return _json({"is_compatible": not problems} | ({"messages": problems} if verbose else {}))


@dataclass(frozen=True)
class _SettingApi:
    """The endpoints of a setting, of a subject or of all: what requests and errors call it, and the errors' codes."""

    log: RegistryLog
    setting: Setting
    field: str
    name: str
    absent: int
    invalid: int

    def show(self, request: Request) -> Response:
        subject, state = subject_or_none(request), self.log.read()
        if subject is None or subject in state.settings[self.setting] or flag(request, "defaultToGlobal"):
            return _json({self.setting.name: state.value(self.setting, subject)})
        raise self._no_setting(subject)

    async def set(self, request: Request) -> Response:
        value = str((await body_of(request)).get(self.field, "")).upper()
        if value not in self.setting.values:
            values = ", ".join(self.setting.values)
            raise ApiError(self.invalid, f"Invalid {self.name}. Valid values are {values}")
        record = setting_record(self.setting, subject_or_none(request), value)
        await run_in_threadpool(lambda: self.log.write(lambda state: ([record], None)))
        return _json({self.field: value})

    def delete(self, request: Request) -> Response:
        subject = subject_of(request)

        def decide(state: RegistryState) -> Decision[str]:
            if subject not in state.settings[self.setting]:
                raise self._no_setting(subject)
            return [setting_record(self.setting, subject, None)], state.settings[self.setting][subject]

        return _json({self.setting.name: self.log.write(decide)})

    def _no_setting(self, subject: str) -> ApiError:
        text = f"Subject '{subject}' does not have subject-level {self.field} configured"
        return ApiError(self.absent, text)


def _versions(state: RegistryState, subject: str, deleted: bool) -> list[SchemaVersion]:
    if versions := list(state.versions(subject, deleted)):
        return versions
    if any(True for _ in state.versions(subject, True)):
        raise ApiError(40404, f"Subject '{subject}' was soft deleted. Register a schema to bring it back")
    raise ApiError(40401, f"Subject '{subject}' not found.")


def _version(state: RegistryState, request: Request, deleted: bool) -> SchemaVersion:
    text = request.path_params["version"]
    versions = _versions(state, subject_of(request), deleted)
    if text in _LATEST:
        return versions[-1]
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) < 2**31):
        raise ApiError(
            42202, f"The specified version '{text}' is not a valid version id: a number from 1, or \"latest\""
        )
    for version in versions:
        if version.version == int(text):
            return version
    raise ApiError(40402, f"Version {text} not found.")


def _check_writable(state: RegistryState, subject: str) -> None:
    if state.value(MODE, subject) == "READONLY":
        raise ApiError(42205, f"Subject {subject} is in read-only mode")


def _refuse_permanent(request: Request) -> None:
    if flag(request, "permanent"):
        raise ApiError(
            42205, "Nothing is deleted for good: records written with the schema may still be in the log"
        )


def _shown(subject: str, version: SchemaVersion) -> dict[str, Any]:
    return {
        "subject": subject,
        "version": version.version,
        "id": version.id,
        "schemaType": "AVRO",
        "schema": version.schema,
    }


def _json(content: Any) -> Response:
    return JSONResponse(content, media_type=CONTENT_TYPE)


if __name__ == "__main__":
    main()
