"""A client of a schema registry with Confluent's REST interface. Standard library only.

Applications import it. It asks for what is needed to resolve schema ids and to register schemas, and caches what never
changes: a schema id means the same schema for ever. That an id is unknown is never cached, since it may be registered
the next moment.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from tailrace.access.home_servers import Auth, login
from tailrace.addresses import credentials_in, http_parts, without_credentials
from tailrace.errors import BadRecord, TailraceError, Unavailable, UsageError

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"

Schema = dict[str, Any] | list[Any] | str
"""An Avro schema as parsed JSON."""

_NO_SUBJECT, _NO_VERSION, _NO_SCHEMA = 40401, 40402, 40403
_NOTHING_YET = (_NO_SUBJECT, _NO_VERSION)


class UnknownSchema(BadRecord):
    """The registry answered that it has no such schema id; the record that names it is bad."""

    def __init__(self, schema_id: int) -> None:
        super().__init__("unknown-schema", f"the registry knows no schema with the id {schema_id}")


class IncompatibleSchema(TailraceError):
    """The registry refused a schema: it breaks readers or writers of the subject's earlier versions."""


class Registered(NamedTuple):
    id: int
    version: int
    schema: Schema


class Registry(Protocol):
    """What the codec and `apply` need of a registry; `RegistryClient` is the one that speaks HTTP."""

    def register(self, subject: str, schema: Schema) -> int: ...
    def schema(self, schema_id: int) -> Schema: ...
    def latest(self, subject: str) -> Registered | None: ...
    def check_compatible(self, subject: str, schema: Schema) -> tuple[bool, list[str]]: ...
    def set_level(self, subject: str, level: str) -> None: ...


class RegistryClient:
    """One registry.

    Every call raises `Unavailable` while the registry cannot be reached or answers that it is unwell, and
    `TailraceError` where it refuses for a reason that waiting does not cure (credentials, an address that is
    no registry).

    Args:
        url: base URL, http or https, with user and password where ``auth`` does not say them.
        auth: ``user:password``, or what gives it, which is asked again where the registry refuses it; or None.
        timeout: seconds for one call.
    """

    def __init__(self, url: str, auth: Auth = None, timeout: float = 5.0) -> None:
        auth, url, parts = auth or credentials_in(url), without_credentials(url), http_parts(url)
        if parts is None or not parts.hostname:
            raise UsageError(
                f"{url!r} is no address of a schema registry: set SCHEMA_REGISTRY_URL to one such as "
                "http://127.0.0.1:8081"
            )
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._headers = {"Accept": CONTENT_TYPE, "Content-Type": CONTENT_TYPE}
        self._auth, self._login = auth, login(auth)
        # A proxy set for the outside world must not come between two processes of one machine.
        direct = [urllib.request.ProxyHandler({})] if _is_loopback(parts.hostname) else []
        self._opener = urllib.request.build_opener(*direct)
        self._schemas: dict[int, Schema] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def schema(self, schema_id: int) -> Schema:
        """The Avro schema with this id.

        Raises:
            UnknownSchema: the registry says that there is none.
            BadRecord: ``unsupported-schema``, it is not Avro or is made of references to other subjects.
        """
        schema = self._schemas.get(schema_id)
        if schema is None:
            answer = self._call("GET", f"/schemas/ids/{schema_id}", absent=(_NO_SCHEMA,))
            if answer is None:
                raise UnknownSchema(schema_id)
            kind, references = answer.get("schemaType", "AVRO"), answer.get("references")
            if kind != "AVRO" or references:
                kind += " with references" if references else ""
                raise BadRecord("unsupported-schema", f"schema {schema_id} is {kind}; plain Avro is needed")
            try:
                schema = self._schemas[schema_id] = json.loads(answer["schema"])
            except (ValueError, RecursionError) as error:
                raise BadRecord("unsupported-schema", f"schema {schema_id} is no JSON: {error}") from error
        return schema

    def register(self, subject: str, schema: Schema) -> int:
        """Registers the schema under the subject, or finds it there; its id either way.

        Raises:
            IncompatibleSchema: it breaks the subject's compatibility level; says how.
        """
        text = schema_text(schema)
        if (subject, text) not in self._ids:
            status, answer = self._request("POST", f"/subjects/{_quoted(subject)}/versions", {"schema": text})
            if status == 409:
                raise IncompatibleSchema(
                    f"the registry refuses the new schema of {subject}: {_message(answer)}. Keep the fields that "
                    "are there and give new ones a default, or register it under another subject"
                )
            if status != 200:
                raise self._refused(status, answer)
            self._ids[subject, text] = int(answer["id"])
        return self._ids[subject, text]

    def latest(self, subject: str) -> Registered | None:
        """The subject's newest version, or None where it has none. Not cached."""
        answer = self._call("GET", f"/subjects/{_quoted(subject)}/versions/latest", absent=_NOTHING_YET)
        if answer is None:
            return None
        return Registered(int(answer["id"]), int(answer["version"]), json.loads(answer["schema"]))

    def check_compatible(self, subject: str, schema: Schema) -> tuple[bool, list[str]]:
        """Whether the registry would take the schema as the subject's next version, and why not. Changes nothing."""
        path = f"/compatibility/subjects/{_quoted(subject)}/versions?verbose=true"
        answer = self._call("POST", path, {"schema": schema_text(schema)}, absent=_NOTHING_YET)
        if answer is None:
            return True, []
        return bool(answer["is_compatible"]), [str(m) for m in answer.get("messages", [])]

    def set_level(self, subject: str, level: str) -> None:
        """Sets the subject's compatibility level, e.g. ``FULL_TRANSITIVE``."""
        self._call("PUT", f"/config/{_quoted(subject)}", {"compatibility": level})

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, absent: Collection[int] = ()
    ) -> dict[str, Any] | None:
        """The answer; None where its error is one of ``absent``."""
        status, answer = self._request(method, path, body)
        if _code(answer) in absent:
            return None
        if status != 200:
            raise self._refused(status, answer)
        return answer

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        sent = self._login
        status, content = self._ask(method, path, data, sent)
        if status == 401 and (renewed := login(self._auth)) != sent:
            self._login = renewed
            status, content = self._ask(method, path, data, renewed)
        if status >= 500 or status in (408, 429):
            raise Unavailable(f"the schema registry at {self._url} answers {status}: {content[:200]!r}")
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise TailraceError(
                f"{self._url} answers {status} and not as a schema registry does: check SCHEMA_REGISTRY_URL"
            )
        return status, answer

    def _ask(self, method: str, path: str, data: bytes | None, login: str | None) -> tuple[int, bytes]:
        request = urllib.request.Request(  # noqa: S310  (the scheme was checked)
            self._url + path, data=data, headers=self._headers, method=method
        )
        if login:
            # Where a redirect leads is not who the credential is for.
            basic = "Basic " + base64.b64encode(login.encode()).decode()
            request.add_unredirected_header("Authorization", basic)
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, cut short
            raise Unavailable(f"the schema registry at {self._url} cannot be reached: {error}") from error

    def _refused(self, status: int, answer: dict[str, Any]) -> TailraceError:
        advice = {
            401: "write USER:PASSWORD into SCHEMA_REGISTRY_URL, as http://USER:PASSWORD@HOST, or into "
            "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO; for a home's own registry `tailrace env` prints them",
            403: "this user lacks the right",
            404: "check SCHEMA_REGISTRY_URL",
        }
        return TailraceError(
            f"the schema registry at {self._url} refuses with {status}: {_message(answer)}"
            + (f" ({advice[status]})" if status in advice else "")
        )


def schema_text(schema: Schema) -> str:
    """The text under which a schema is registered: compact JSON, fields in their order."""
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)


def _quoted(subject: str) -> str:
    return urllib.parse.quote(subject, safe="")


def _code(answer: dict[str, Any]) -> int:
    return int(answer.get("error_code", 0))


def _message(answer: dict[str, Any]) -> str:
    return str(answer.get("message", answer))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
