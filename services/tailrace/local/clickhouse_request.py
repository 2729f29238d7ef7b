"""What a request to the local ClickHouse says besides its statement: in the URL, in fields of a form, in headers.

A form counts before the URL, and the URL before a header. What is no parameter of the protocol is a setting. A form's
files are tables for this one statement, ``external data``.
"""

from __future__ import annotations

import email.parser
import email.policy
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import Request

from tailrace.local.clickhouse_bodies import unpacked
from tailrace.local.clickhouse_engine import ExternalTable, Session
from tailrace.local.clickhouse_errors import engine_error
from tailrace.local.clickhouse_native import parts_of
from tailrace.local.clickhouse_refused import NO_SESSION

BAD_ARGUMENTS = 36
TOO_LARGE = 396
LARGEST_FORM = 64 << 20

_PROTOCOL = {
    "add_http_cors_header",
    "buffer_size",
    "client_protocol_version",
    "compress",
    "database",
    "decompress",
    "default_format",
    "enable_http_compression",
    "http_headers_progress_interval_ms",
    "password",
    "query",
    "query_id",
    "quota_key",
    "role",
    "send_progress_in_http_headers",
    "session_check",
    "session_id",
    "session_timeout",
    "stacktrace",
    "user",
    "wait_end_of_query",
}
_HEADERS = {
    "database": "x-clickhouse-database",
    "default_format": "x-clickhouse-format",
    "query_id": "x-clickhouse-query-id",
}
"""Parameters with headers of their own. User and key are the door's."""
_NAME = re.compile(r"[A-Za-z_]\w*")


class ClickHouseRequest(NamedTuple):
    """
    Attributes:
        parameters: by name, of the protocol, settings and ``param_NAME``.
        encodings: that HTTP says the client takes.
        body: what stands behind the statement of the URL, or is the statement.
        tables: the form's files.
    """

    parameters: Mapping[str, str]
    encodings: tuple[str, ...]
    body: AsyncIterator[bytes]
    tables: tuple[ExternalTable, ...] = ()

    def is_on(self, name: str) -> bool:
        return self.parameters.get(name) == "1"

    def session(self, user: str, query_id: str, is_read_only: bool) -> Session:
        """
        Raises:
            EngineError: it wants a session that is there already, or is of a version that is none.
        """
        if self.is_on("session_check"):
            raise engine_error(NO_SESSION, "there are no sessions here", "SESSION_NOT_FOUND")
        version = self.parameters.get("client_protocol_version") or "0"
        if not version.isdecimal():
            raise engine_error(
                BAD_ARGUMENTS, f"the client_protocol_version {version!r} is no number", "BAD_ARGUMENTS"
            )
        named = self.parameters.items()
        return Session(
            database=self.parameters.get("database"),
            settings={n: v for n, v in named if n not in _PROTOCOL and not n.startswith("param_")},
            parameters={n.removeprefix("param_"): v for n, v in named if n.startswith("param_")},
            readonly=is_read_only,
            user=user,
            query_id=query_id,
            is_named=bool(self.parameters.get("session_id")),
            client_version=int(version),
            tables=self.tables,
        )


def query_id_of(request: Request) -> str:
    """The client's id of the query, or a new one."""
    return _beside(request).get("query_id") or str(uuid.uuid4())


async def read(request: Request) -> ClickHouseRequest:
    """
    Raises:
        EngineError: the form is too large, or a file in it has no columns.
    """
    parameters = _beside(request)
    accepted = request.headers.get("accept-encoding", "").lower().split(",")
    encodings = tuple(encoding.split(";")[0].strip() for encoding in accepted)
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith("multipart/form-data"):
        return ClickHouseRequest(
            parameters, encodings, unpacked(request, parameters.get("decompress") == "1")
        )
    fields, files = _form(content_type, await _whole(unpacked(request, has_blocks=False)))
    for name in files:
        # What describes a file is no setting.
        parameters = {n: v for n, v in parameters.items() if n not in _describing(name)}
    described = _beside(request) | fields
    parameters |= {n: v for n, v in fields.items() if not any(n in _describing(file) for file in files)}
    tables = tuple(_table(name, data, described) for name, data in files.items())
    return ClickHouseRequest(parameters, encodings, _nothing(), tables)


def _beside(request: Request) -> dict[str, str]:
    of_headers = {name: request.headers.get(header, "") for name, header in _HEADERS.items()}
    # Any bytes may stand in a statement, in a URL too.
    query = request.scope["query_string"].decode("ascii", "surrogateescape")
    of_url = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    return {name: value for name, value in of_headers.items() if value} | dict(of_url)


def _describing(file: str) -> Iterable[str]:
    return [f"{file}_{what}" for what in ("format", "structure", "types")]


def _table(name: str, data: bytes, described: Mapping[str, str]) -> ExternalTable:
    data_format, structure, types = (described.get(key, "") for key in _describing(name))
    if not _NAME.fullmatch(name):
        raise engine_error(BAD_ARGUMENTS, f"{name!r} is no name of external data", "BAD_ARGUMENTS")
    if types and not structure:
        structure = ", ".join(f"_{number} {kind}" for number, kind in enumerate(parts_of(types), 1))
    if not structure:
        raise engine_error(
            BAD_ARGUMENTS,
            f"the external data {name} has no columns: say them in {name}_structure or {name}_types",
            "BAD_ARGUMENTS",
        )
    return ExternalTable(name, structure, data_format or "TabSeparated", data)


async def _whole(pieces: AsyncIterator[bytes]) -> bytes:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > LARGEST_FORM:
            raise engine_error(
                TOO_LARGE,
                f"a form of more than {LARGEST_FORM >> 20} MiB is refused: replay large files by `tailrace replay`, "
                "or ask with fewer rows of external data",
                "TOO_MANY_ROWS_OR_BYTES",
            )
    return bytes(body)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _form(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """The form's fields and files by name."""
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    )
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if not (isinstance(name, str) and isinstance(payload, bytes)):
            continue
        if part.get_filename() is None:
            fields[name] = payload.decode(errors="surrogateescape")
        else:
            files[name] = payload
    return fields, files
