"""The registry's endpoints of schemas and of subjects. What may wait for Kafka runs in threads, so that the server
goes on answering.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tailrace.contracts.records.compatibility import breaks
from tailrace.errors import Unavailable
from tailrace.local.registry_log import Decision, RegistryLog
from tailrace.local.registry_requests import (
    ApiError,
    body_of,
    flag,
    json_answer,
    own_context,
    page_of,
    prefix_of,
    schema_id_of,
    schema_of,
    subject_of,
)
from tailrace.local.registry_state import (
    LEVEL,
    MODE,
    RegistryState,
    SchemaVersion,
    delete_subject_record,
    guid_of,
    schema_key,
    schema_record,
)

_LATEST = ("latest", "-1")
_DEFAULT_CONTEXT = "."


class SchemasApi:
    """Schemas by what means the same in all subjects; and what the registry says of itself."""

    def __init__(self, log: RegistryLog) -> None:
        self._log = log

    def ready(self, request: Request) -> Response:
        try:
            self._log.read()
        except Unavailable as reason:
            return PlainTextResponse(f"{reason}\n", 503)
        return PlainTextResponse("ok\n")

    def types(self, request: Request) -> Response:
        return json_answer(["AVRO"])

    def contexts(self, request: Request) -> Response:
        return json_answer([_DEFAULT_CONTEXT])

    def clusters(self, request: Request) -> Response:
        clusters = {"kafka-cluster": self._log.cluster_id(), "schema-registry-cluster": "schema-registry"}
        return json_answer({"scope": {"path": [], "clusters": clusters}, "id": ""})

    def schemas(self, request: Request) -> Response:
        state, prefix, deleted = self._log.read(), prefix_of(request), flag(request, "deleted")
        last = -1 if flag(request, "latestOnly") else 0
        shown = [
            _shown(subject, version)
            for subject in state.subjects(deleted)
            if subject.startswith(prefix)
            for version in list(state.versions(subject, deleted))[last:]
        ]
        return json_answer(page_of(request, shown))

    def schema(self, request: Request) -> Response:
        return json_answer({"schema": self._schema(request)})

    def schema_only(self, request: Request) -> Response:
        return json_answer(json.loads(self._schema(request)))

    def schema_subjects(self, request: Request) -> Response:
        return json_answer([subject for subject, _ in self._uses(request)])

    def schema_versions(self, request: Request) -> Response:
        uses = self._uses(request)
        return json_answer([{"subject": subject, "version": version} for subject, version in uses])

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

    def guid(self, request: Request) -> Response:
        return json_answer({"schemaType": "AVRO", "schema": self._by_guid(request)[1]})

    def guid_ids(self, request: Request) -> Response:
        return json_answer([{"context": _DEFAULT_CONTEXT, "id": self._by_guid(request)[0]}])

    def _by_guid(self, request: Request) -> tuple[int, str]:
        guid = str(request.path_params["guid"]).lower()
        for state in (self._log.cached, self._log.read):
            for schema_id, schema in list(state().schemas.items()):
                if guid_of(schema) == guid:
                    return schema_id, schema
        raise ApiError(40403, f"Schema {guid} not found")


class SubjectsApi:
    """Subjects, their versions, and what may follow them."""

    def __init__(self, log: RegistryLog) -> None:
        self._log = log

    def subjects(self, request: Request) -> Response:
        prefix, names = prefix_of(request), self._log.read().subjects(flag(request, "deleted"))
        return json_answer(page_of(request, [name for name in names if name.startswith(prefix)]))

    def versions(self, request: Request) -> Response:
        versions = _versions(self._log.read(), subject_of(request), flag(request, "deleted"))
        return json_answer(page_of(request, [version.version for version in versions]))

    def latest_with_metadata(self, request: Request) -> Response:
        """The latest version; of properties that are asked for no schema here has any."""
        latest = _versions(self._log.read(), subject_of(request), flag(request, "deleted"))[-1]
        if request.query_params.getlist("key"):
            raise ApiError(40403, "Schema not found: this registry keeps no metadata beside schemas")
        return json_answer(_shown(subject_of(request), latest))

    def version(self, request: Request) -> Response:
        return json_answer(_shown(subject_of(request), self._version(request)))

    def version_schema(self, request: Request) -> Response:
        return json_answer(json.loads(self._version(request).schema))

    def referenced_by(self, request: Request) -> Response:
        self._version(request)
        return json_answer([])

    def _version(self, request: Request) -> SchemaVersion:
        return _version(self._log.read(), request, flag(request, "deleted"))

    async def look_up(self, request: Request) -> Response:
        text, deleted = schema_of(await body_of(request)), flag(request, "deleted")
        return await run_in_threadpool(lambda: self._look_up(subject_of(request), text, deleted))

    def _look_up(self, subject: str, text: str, deleted: bool) -> Response:
        for version in reversed(_versions(self._log.read(), subject, deleted)):
            if schema_key(version.schema) == schema_key(text):
                return json_answer(_shown(subject, version))
        raise ApiError(40403, "Schema not found")

    async def register(self, request: Request) -> Response:
        body = await body_of(request)
        text = schema_of(body)
        if int(body.get("id") or 0) > 0 or int(body.get("version") or 0) > 0:
            raise ApiError(42205, "Ids and versions are given by the registry: there is no import mode")
        subject = own_context(subject_of(request))
        return await run_in_threadpool(lambda: self._register(subject, text))

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

        return json_answer(_shown(subject, self._log.write(decide)))

    def delete_subject(self, request: Request) -> Response:
        _refuse_permanent(request)
        subject = subject_of(request)

        def decide(state: RegistryState) -> Decision[list[int]]:
            _check_writable(state, subject)
            deleted = [version.version for version in _versions(state, subject, False)]
            return [delete_subject_record(subject, deleted[-1])], deleted

        return json_answer(self._log.write(decide))

    def delete_version(self, request: Request) -> Response:
        _refuse_permanent(request)
        subject = subject_of(request)

        def decide(state: RegistryState) -> Decision[int]:
            _check_writable(state, subject)
            version = _version(state, request, False)
            return [schema_record(subject, version._replace(deleted=True))], version.version

        return json_answer(self._log.write(decide))

    # compatibility

    async def check(self, request: Request) -> Response:
        text, verbose = schema_of(await body_of(request)), flag(request, "verbose")
        return await run_in_threadpool(lambda: self._check(request, text, verbose))

    def _check(self, request: Request, text: str, verbose: bool) -> Response:
        state, subject = self._log.read(), subject_of(request)
        one = "version" in request.path_params
        versions = [_version(state, request, False)] if one else list(state.versions(subject))
        problems = breaks(state.value(LEVEL, subject), text, [version.schema for version in versions])
        return json_answer({"is_compatible": not problems} | ({"messages": problems} if verbose else {}))


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
        "guid": guid_of(version.schema),
        "schemaType": "AVRO",
        "schema": version.schema,
    }
