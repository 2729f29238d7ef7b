"""A schema registry with Confluent's REST interface and error codes, for Avro, its state in Kafka.

It stands in where there is none; with ``SCHEMA_REGISTRY_URL`` another one is used and this is not started.
What it does not do it says: references, other formats, import mode, and permanent deletion, since the records
that were written with a schema may still be there.

API reference: https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace.contracts.compatibility import LEVELS, breaks, invalid
from tailrace.kit.connection import connect
from tailrace.kit.errors import Retry
from tailrace.kit.registry import CONTENT_TYPE
from tailrace.local.ports import require_free
from tailrace.local.registry_log import RegistryLog
from tailrace.local.registry_state import (
    MODES,
    LogRecord,
    RegistryState,
    Version,
    delete_subject_record,
    level_record,
    mode_record,
    schema_key,
    schema_record,
)

_LATEST = ("latest", "-1")
_LARGEST_BODY = 4 * 1024 * 1024


class ApiError(Exception):
    """An answer other than 200; the first three digits of the code are HTTP's status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def serve(kafka: Mapping[str, str], host: str = "127.0.0.1", port: int = 8081) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        kafka: librdkafka options, ``bootstrap.servers`` among them.

    Raises:
        TailraceError: the port is taken.
    """
    require_free(port, "the schema registry", host)
    log = RegistryLog(kafka)
    try:
        uvicorn.run(application(log), host=host, port=port, log_level="warning", access_log=False)
    finally:
        log.close()


def main() -> None:
    """Serves at ``SCHEMA_REGISTRY_URL``'s port, on the loopback interface unless it names an address."""
    connection = connect()
    address = urlsplit(connection.registry)
    serve(connection.kafka, address.hostname or "127.0.0.1", address.port or 8081)


def application(log: RegistryLog) -> Starlette:
    """The ASGI application over this log."""
    api = _Api(log)
    routes = [
        Route("/", lambda request: JSONResponse({})),
        Route("/livez", lambda request: PlainTextResponse("ok\n")),
        Route("/readyz", api.ready),
        Route("/schemas/types", lambda request: JSONResponse(["AVRO"])),
        Route("/schemas/ids/{id}", api.schema),
        Route("/schemas/ids/{id}/schema", api.schema_only),
        Route("/schemas/ids/{id}/subjects", api.schema_subjects),
        Route("/schemas/ids/{id}/versions", api.schema_versions),
        Route("/subjects", api.subjects),
        Route("/subjects/{subject}", api.look_up, methods=["POST"]),
        Route("/subjects/{subject}", api.delete_subject, methods=["DELETE"]),
        Route("/subjects/{subject}/versions", api.versions),
        Route("/subjects/{subject}/versions", api.register, methods=["POST"]),
        Route("/subjects/{subject}/versions/{version}", api.version),
        Route("/subjects/{subject}/versions/{version}", api.delete_version, methods=["DELETE"]),
        Route("/subjects/{subject}/versions/{version}/schema", api.version_schema),
        Route("/subjects/{subject}/versions/{version}/referencedby", api.referenced_by),
        Route("/compatibility/subjects/{subject}/versions", api.check_all, methods=["POST"]),
        Route("/compatibility/subjects/{subject}/versions/{version}", api.check_one, methods=["POST"]),
        Route("/config", api.level),
        Route("/config", api.set_level, methods=["PUT"]),
        Route("/config/{subject}", api.level),
        Route("/config/{subject}", api.set_level, methods=["PUT"]),
        Route("/config/{subject}", api.delete_level, methods=["DELETE"]),
        Route("/mode", api.mode),
        Route("/mode", api.set_mode, methods=["PUT"]),
        Route("/mode/{subject}", api.mode),
        Route("/mode/{subject}", api.set_mode, methods=["PUT"]),
        Route("/mode/{subject}", api.delete_mode, methods=["DELETE"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_AsSent)],
        exception_handlers={
            ApiError: lambda request, error: _error(error.code, error.message),
            Retry: lambda request, error: _error(50001, str(error)),
            HTTPException: lambda request, error: _error(error.status_code, error.detail),
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
        except Retry as reason:
            return PlainTextResponse(f"{reason}\n", 503)
        return PlainTextResponse("ok\n")

    # schemas by id

    def schema(self, request: Request) -> Response:
        return _json({"schema": self._schema(request)})

    def schema_only(self, request: Request) -> Response:
        return _json(json.loads(self._schema(request)))

    def schema_subjects(self, request: Request) -> Response:
        self._schema(request)
        return _json([subject for subject, _ in self._log.read().uses(_schema_id(request))])

    def schema_versions(self, request: Request) -> Response:
        self._schema(request)
        uses = self._log.read().uses(_schema_id(request))
        return _json([{"subject": subject, "version": version} for subject, version in uses])

    def _schema(self, request: Request) -> str:
        schema_id = _schema_id(request)
        # An id never changes its meaning: what is known needs no look at the log, nor Kafka at all.
        found = self._log.cached().schemas.get(schema_id) or self._log.read().schemas.get(schema_id)
        if found is None:
            raise ApiError(40403, f"Schema {schema_id} not found")
        return found

    # subjects and versions

    def subjects(self, request: Request) -> Response:
        prefix = request.query_params.get("subjectPrefix", "")
        names = self._log.read().subjects(_flag(request, "deleted"))
        return _json([name for name in names if name.startswith(prefix)])

    def versions(self, request: Request) -> Response:
        found = _versions(self._log.read(), _subject(request), _flag(request, "deleted"))
        return _json([version.version for version in found])

    def version(self, request: Request) -> Response:
        return _json(_shown(_subject(request), self._version(request)))

    def version_schema(self, request: Request) -> Response:
        return _json(json.loads(self._version(request).schema))

    def referenced_by(self, request: Request) -> Response:
        self._version(request)
        return _json([])

    def _version(self, request: Request) -> Version:
        return _version(self._log.read(), request, _flag(request, "deleted"))

    async def look_up(self, request: Request) -> Response:
        text, deleted = _schema_text(await _body(request)), _flag(request, "deleted")
        return await run_in_threadpool(lambda: self._look_up(_subject(request), text, deleted))

    def _look_up(self, subject: str, text: str, deleted: bool) -> Response:
        for version in reversed(_versions(self._log.read(), subject, deleted)):
            if schema_key(version.schema) == schema_key(text):
                return _json(_shown(subject, version))
        raise ApiError(40403, "Schema not found")

    async def register(self, request: Request) -> Response:
        said = await _body(request)
        text = _schema_text(said)
        if int(said.get("id") or 0) > 0 or int(said.get("version") or 0) > 0:
            raise ApiError(42205, "Ids and versions are given by the registry: there is no import mode")
        return await run_in_threadpool(lambda: self._register(_subject(request), text))

    def _register(self, subject: str, text: str) -> Response:
        registered: list[Version] = []

        def decide(state: RegistryState) -> list[LogRecord]:
            registered.clear()
            versions = list(state.versions(subject))
            same = [v for v in versions if schema_key(v.schema) == schema_key(text)]
            if same:
                registered.append(same[-1])
                return []
            _check_writable(state, subject)
            if found := breaks(state.level(subject), text, [v.schema for v in versions]):
                lead = (
                    f'Schema being registered is incompatible with an earlier schema for subject "{subject}"'
                )
                raise ApiError(409, f"{lead}, details: {found}")
            version = Version(state.next_version(subject), state.id_of(text), text, False)
            registered.append(version)
            return [schema_record(subject, version)]

        self._log.write(decide)
        return _json(_shown(subject, registered[0]))

    def delete_subject(self, request: Request) -> Response:
        _refuse_permanent(request)
        subject = _subject(request)
        deleted: list[int] = []

        def decide(state: RegistryState) -> list[LogRecord]:
            _check_writable(state, subject)
            deleted[:] = [v.version for v in _versions(state, subject, False)]
            return [delete_subject_record(subject, deleted[-1])]

        self._log.write(decide)
        return _json(deleted)

    def delete_version(self, request: Request) -> Response:
        _refuse_permanent(request)
        subject = _subject(request)
        deleted: list[int] = []

        def decide(state: RegistryState) -> list[LogRecord]:
            _check_writable(state, subject)
            version = _version(state, request, False)
            deleted[:] = [version.version]
            return [schema_record(subject, version._replace(deleted=True))]

        self._log.write(decide)
        return _json(deleted[0])

    # compatibility

    async def check_all(self, request: Request) -> Response:
        text, verbose = _schema_text(await _body(request)), _flag(request, "verbose")
        return await run_in_threadpool(lambda: self._check(_subject(request), None, text, verbose))

    async def check_one(self, request: Request) -> Response:
        text, verbose = _schema_text(await _body(request)), _flag(request, "verbose")
        return await run_in_threadpool(lambda: self._check(_subject(request), request, text, verbose))

    def _check(self, subject: str, one: Request | None, text: str, verbose: bool) -> Response:
        state = self._log.read()
        versions = list(state.versions(subject)) if one is None else [_version(state, one, False)]
        found = breaks(state.level(subject), text, [version.schema for version in versions])
        return _json({"is_compatible": not found} | ({"messages": found} if verbose else {}))

    def level(self, request: Request) -> Response:
        subject, state = _subject_or_none(request), self._log.read()
        if subject in state.levels or subject is None:
            return _json({"compatibilityLevel": state.level(subject or "")})
        if _flag(request, "defaultToGlobal"):
            return _json({"compatibilityLevel": state.level(subject)})
        raise ApiError(40408, f"Subject '{subject}' does not have subject-level compatibility configured")

    async def set_level(self, request: Request) -> Response:
        level = str((await _body(request)).get("compatibility", "")).upper()
        if level not in LEVELS:
            raise ApiError(42203, f"Invalid compatibility level. Valid values are {', '.join(LEVELS)}")
        subject = _subject_or_none(request)
        await run_in_threadpool(lambda: self._log.write(lambda state: [level_record(subject, level)]))
        return _json({"compatibility": level})

    def delete_level(self, request: Request) -> Response:
        subject, before = _subject(request), [""]

        def decide(state: RegistryState) -> list[LogRecord]:
            if subject not in state.levels:
                raise ApiError(
                    40408, f"Subject '{subject}' does not have subject-level compatibility configured"
                )
            before[0] = state.levels[subject]
            return [level_record(subject, None)]

        self._log.write(decide)
        return _json({"compatibilityLevel": before[0]})

    # mode

    def mode(self, request: Request) -> Response:
        subject, state = _subject_or_none(request), self._log.read()
        if subject in state.modes or subject is None or _flag(request, "defaultToGlobal"):
            return _json({"mode": state.mode(subject or "")})
        raise ApiError(40409, f"Subject '{subject}' does not have subject-level mode configured")

    async def set_mode(self, request: Request) -> Response:
        mode = str((await _body(request)).get("mode", "")).upper()
        if mode not in MODES:
            raise ApiError(42204, f"Invalid mode. Valid values are {', '.join(MODES)}")
        subject = _subject_or_none(request)
        await run_in_threadpool(lambda: self._log.write(lambda state: [mode_record(subject, mode)]))
        return _json({"mode": mode})

    def delete_mode(self, request: Request) -> Response:
        subject, before = _subject(request), [""]

        def decide(state: RegistryState) -> list[LogRecord]:
            if subject not in state.modes:
                raise ApiError(40409, f"Subject '{subject}' does not have subject-level mode configured")
            before[0] = state.modes[subject]
            return [mode_record(subject, None)]

        self._log.write(decide)
        return _json({"mode": before[0]})


async def _body(request: Request) -> dict[str, Any]:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _LARGEST_BODY:
            raise ApiError(413, f"The request is larger than {_LARGEST_BODY} bytes")
    try:
        said = json.loads(content)
    except ValueError as error:
        raise ApiError(42201, f"The request is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ApiError(42201, "The request is no JSON object")
    return said


def _schema_text(said: dict[str, Any]) -> str:
    """The request's schema as compact JSON, found to be valid Avro."""
    if said.get("schemaType", "AVRO") not in (None, "AVRO"):
        raise ApiError(42201, f"Invalid schema type {said['schemaType']}: this registry holds AVRO only")
    if said.get("references"):
        raise ApiError(42201, "Invalid schema: this registry holds no schemas that refer to others")
    text = said.get("schema")
    if not isinstance(text, str):
        raise ApiError(42201, "Invalid schema: the request has no text under 'schema'")
    try:
        text = json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise ApiError(42201, f"Invalid schema: {error}") from error
    if reason := invalid(text):
        raise ApiError(42201, f"Invalid schema {text[:200]}, details: {reason}")
    return text


def _versions(state: RegistryState, subject: str, deleted: bool) -> list[Version]:
    found = list(state.versions(subject, deleted))
    if not found:
        if any(True for _ in state.versions(subject, True)):
            raise ApiError(40404, f"Subject '{subject}' was soft deleted. Register a schema to bring it back")
        raise ApiError(40401, f"Subject '{subject}' not found.")
    return found


def _version(state: RegistryState, request: Request, deleted: bool) -> Version:
    text = request.path_params["version"]
    found = _versions(state, _subject(request), deleted)
    if text in _LATEST:
        return found[-1]
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) < 2**31):
        raise ApiError(
            42202, f"The specified version '{text}' is not a valid version id: a number from 1, or \"latest\""
        )
    for version in found:
        if version.version == int(text):
            return version
    raise ApiError(40402, f"Version {text} not found.")


def _check_writable(state: RegistryState, subject: str) -> None:
    if state.mode(subject) == "READONLY":
        raise ApiError(42205, f"Subject {subject} is in read-only mode")


def _refuse_permanent(request: Request) -> None:
    if _flag(request, "permanent"):
        raise ApiError(
            42205, "Nothing is deleted for good: records written with the schema may still be in the log"
        )


def _shown(subject: str, version: Version) -> dict[str, Any]:
    return {
        "subject": subject,
        "version": version.version,
        "id": version.id,
        "schemaType": "AVRO",
        "schema": version.schema,
    }


def _subject(request: Request) -> str:
    return unquote(request.path_params["subject"])


def _subject_or_none(request: Request) -> str | None:
    return _subject(request) if "subject" in request.path_params else None


def _schema_id(request: Request) -> int:
    text = str(request.path_params["id"])
    if not (text.isascii() and text.isdecimal()):
        raise ApiError(404, f"HTTP 404 Not Found: {text} is no schema id")
    return int(text)


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "false").lower() == "true"


def _json(content: Any) -> Response:
    return JSONResponse(content, media_type=CONTENT_TYPE)


def _error(code: int, message: str) -> Response:
    status = code if code < 1000 else code // 100
    return JSONResponse({"error_code": code, "message": message}, status, media_type=CONTENT_TYPE)


if __name__ == "__main__":
    main()
