"""ClickHouse's HTTP interface in front of the engine, for one machine; any ClickHouse client can talk to it.

Understands what clients send: the statement in the URL or the body, data after ``FORMAT name`` (streamed, in
any input format), compressed bodies and answers (lz4, zstd, gzip, deflate), ``param_x`` values in the URL or
a form, settings and ``database`` in the URL, GET as read-only. Who may ask at all is the door's to say (see
`clickhouse_door`), which puts the user into the request's scope. There are no sessions: ``session_id`` alone is
accepted, ``session_check`` is an error. Answers are sent as they come (see `clickhouse_answer`), and a statement ends
when its client has gone.
"""

from __future__ import annotations

import email.parser
import email.policy
import os
import re
import sys
import threading
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lz4.frame  # type: ignore[import-untyped]
import uvicorn
from backports import zstd
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tailrace.access.home_servers import CLICKHOUSE, open_door
from tailrace.confinement.profiles import clickhouse_limits, hold
from tailrace.connection import home_dir
from tailrace.local.clickhouse_answer import StatementSlots, StreamedAnswer, summary
from tailrace.local.clickhouse_door import behind_door
from tailrace.local.clickhouse_engine import Engine, EngineAnswer, Session
from tailrace.local.clickhouse_refused import NO_SESSION, EngineError, StatementRefused
from tailrace.local.ports import HOST, listening

_NOT_IMPLEMENTED = (48, "NOT_IMPLEMENTED")
_SYNTAX_ERROR = (62, "SYNTAX_ERROR")
_UNKNOWN_COMPRESSION = (89, "UNKNOWN_COMPRESSION_METHOD")
_NO_SUCH_DATA = (89, "CANNOT_DECOMPRESS")
_LOOK_S = 1.0
_CORRUPT: tuple[type[Exception], ...] = (zlib.error, RuntimeError, ValueError, EOFError, zstd.ZstdError)
_MISTAKES = {6, 26, 27, 36, 38, 41, 42, 43, 44, 53, 62, 72, 115, 117, 130, 386, 457}
_UNKNOWN = {46, 47, 50, 56, 60, 63, 73, 81}

# Parameters of the protocol; every other one in a URL is a setting.
_PROTOCOL = frozenset(
    {
        *("add_http_cors_header", "buffer_size", "client_protocol_version", "compress", "database"),
        *("decompress", "default_format", "enable_http_compression", "http_headers_progress_interval_ms"),
        *("password", "query", "query_id", "quota_key", "role", "send_progress_in_http_headers"),
        *("session_check", "session_id", "session_timeout", "stacktrace", "user", "wait_end_of_query"),
    }
)

_TOKEN = re.compile(
    rb"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\"|--[^\n]*|/\*.*?\*/|\w+|\s+|.",
    re.DOTALL,
)
_FORMAT_END = re.compile(rb"\s+(\w+)[ \t\f]*\r?\n?")
# A statement is found within this much; the rest is data.
_HEAD = 256 * 1024


class Insert(NamedTuple):
    """``INSERT`` with data behind it: the statement, the data's format, and where the data begins."""

    statement: str
    data_format: str
    data_at: int


def split_insert(text: bytes) -> Insert | None:
    """Tells the statement from the data in ``INSERT INTO ... FORMAT name <data>`` and ``... VALUES <data>``.

    None for every other statement, ``INSERT INTO ... SELECT`` among them.
    """
    first = True
    for token in _TOKEN.finditer(text):
        word = token.group().upper()
        if word.isspace() or word.startswith((b"--", b"/*")):
            continue
        if first and word != b"INSERT":
            return None
        first = False
        statement = text[: token.start()]
        if word in (b"SELECT", b"WITH", b"INFILE"):
            return None
        if word == b"VALUES":
            return Insert(statement.decode(), "Values", token.end())
        if word == b"FORMAT":
            name = _FORMAT_END.match(text, token.end())
            return name and Insert(statement.decode(), name[1].decode(), name.end())
    return None


class Bridge:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots = StatementSlots()
        self.app = Starlette(
            routes=[
                Route("/ping", self._ping, methods=["GET", "HEAD"]),
                Route("/", self._statement, methods=["GET", "POST"]),
            ]
        )

    async def _ping(self, request: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def _statement(self, request: Request) -> Response | StreamedAnswer:
        query_id = request.query_params.get("query_id") or str(uuid.uuid4())
        try:
            return await self._answer(request, query_id)
        except EngineError as error:
            return self._error(error, query_id)

    async def _answer(self, request: Request, query_id: str) -> Response | StreamedAnswer:
        parameters = dict(request.query_params)
        content_type = request.headers.get("content-type", "")
        if content_type.startswith("multipart/form-data"):
            form = _form(content_type, await request.body())
            for name in form.keys() - {"query"}:
                if not name.startswith("param_"):
                    raise StatementRefused(f"external data ({name}) is not supported", _NOT_IMPLEMENTED)
            parameters |= form
            pieces = _nothing()
        else:
            pieces = _decompress(request)
        if parameters.get("decompress") == "1" or parameters.get("compress") == "1":
            raise StatementRefused("ClickHouse's own block compression is not supported", _NOT_IMPLEMENTED)
        if parameters.get("session_check") == "1":
            raise StatementRefused("there are no sessions here", NO_SESSION)
        session = _session(
            parameters, readonly=request.method == "GET", user=str(request.scope["user"]), query_id=query_id
        )

        head = bytearray()
        if parameters.get("query"):
            head += parameters["query"].encode() + b"\n"
        async for piece in pieces:
            head += piece
            if len(head) >= _HEAD:
                break
        headers = self._headers(query_id)
        if not head.strip():
            return PlainTextResponse("Ok.\n", headers=headers)
        # Splitting sees the first part only: data may be gigabytes.
        insert = split_insert(bytes(head[:_HEAD]))
        if insert is not None:
            answer = await self._insert(insert, bytes(head[insert.data_at :]), pieces, session)
            return Response(b"", headers=headers | {"X-ClickHouse-Summary": summary(answer, 0)})
        async for piece in pieces:
            head += piece
        try:
            sql = head.decode()
        except UnicodeDecodeError as error:
            raise StatementRefused(f"the statement is not UTF-8: {error}", _SYNTAX_ERROR) from None
        sql = sql.rstrip().rstrip(";")
        default = parameters.get("default_format", "TabSeparated")
        if answer_format := _format_of(sql, default):
            headers["X-ClickHouse-Format"] = answer_format
        return StreamedAnswer(
            self._engine,
            self._slots,
            request,
            (sql, session, default),
            headers,
            lambda error: self._error(error, query_id),
        )

    async def _insert(
        self, insert: Insert, first: bytes, rest: AsyncIterator[bytes], session: Session
    ) -> EngineAnswer:
        slot = await self._slots.take(session.user)
        in_thread = self._slots.in_thread
        try:
            stream = await in_thread(self._engine.insert, insert.statement, insert.data_format, session)
            try:
                if first:
                    await in_thread(stream.append, first)
                async for piece in rest:
                    if piece:
                        await in_thread(stream.append, piece)
                answer: EngineAnswer = await in_thread(stream.finish)
                return answer
            finally:
                # After an error, or a client that went away, nothing of its half-sent data is kept.
                await in_thread(stream.close)
        finally:
            slot.release()

    def _headers(self, query_id: str) -> dict[str, str]:
        return {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Server-Display-Name": "tailrace",
            "X-ClickHouse-Timezone": self._engine.timezone,
        }

    def _error(self, error: EngineError, query_id: str) -> Response:
        status = 400 if error.code in _MISTAKES else 404 if error.code in _UNKNOWN else 500
        headers = self._headers(query_id) | {"X-ClickHouse-Exception-Code": str(error.code)}
        return PlainTextResponse(
            f"{error} (version {self._engine.version})\n", status_code=status, headers=headers
        )


def _session(parameters: Mapping[str, str], readonly: bool, user: str, query_id: str) -> Session:
    values = {name: value for name, value in parameters.items() if name.startswith("param_")}
    return Session(
        parameters.get("database"),
        {k: v for k, v in parameters.items() if k not in _PROTOCOL and k not in values},
        {name.removeprefix("param_"): value for name, value in values.items()},
        readonly,
        user,
        query_id,
    )


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _decompress(request: Request) -> AsyncIterator[bytes]:
    encoding = request.headers.get("content-encoding", "identity").lower()
    decoder = _decoder(encoding)
    try:
        async for piece in request.stream():
            if piece:
                yield decoder(piece)
    except _CORRUPT as error:
        raise StatementRefused(f"the body is no valid {encoding}: {error}", _NO_SUCH_DATA) from None


class _Frames:
    """Decompresses a stream of frames: clients compress each block of an insert by itself."""

    def __init__(self, decompressor: Callable[[], Any]) -> None:
        self._new = decompressor
        self._frame = decompressor()

    def __call__(self, piece: bytes) -> bytes:
        plain = bytearray()
        while piece:
            if self._frame.eof:
                self._frame = self._new()
            plain += self._frame.decompress(piece)
            piece = self._frame.unused_data if self._frame.eof else b""
        return bytes(plain)


def _decoder(encoding: str) -> Callable[[bytes], bytes]:
    if encoding in ("", "identity"):
        return lambda piece: piece
    if encoding in ("gzip", "deflate"):
        return _Frames(lambda: zlib.decompressobj(wbits=47))
    if encoding == "lz4":
        return _Frames(lz4.frame.LZ4FrameDecompressor)
    if encoding == "zstd":
        return _Frames(zstd.ZstdDecompressor)
    raise StatementRefused(f"unknown Content-Encoding {encoding!r}", _UNKNOWN_COMPRESSION)


def _form(content_type: str, body: bytes) -> dict[str, str]:
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    )
    fields = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode()
    return fields


_ANSWERS = re.compile(r"\s*(?:\(|SELECT|WITH|SHOW|DESC|DESCRIBE|EXISTS|EXPLAIN|CHECK)", re.IGNORECASE)
_TRAILING_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*$", re.IGNORECASE)


def _format_of(sql: str, default: str) -> str | None:
    """The format of the answer, for its header; None for a statement that has none (DDL)."""
    if not _ANSWERS.match(sql):
        return None
    name = _TRAILING_FORMAT.search(sql)
    return name[1] if name else default


def serve(home: Path, port: int) -> None:
    """Serves the home's ClickHouse data on ``127.0.0.1:port`` until SIGTERM or SIGINT, to who has a token of it, in a
    process that the kernel confines.

    Raises:
        TailraceError: the port is taken, another process owns the folder, or it cannot be written.
    """
    path = home / "data" / "clickhouse"
    # Before the engine opens, and before any thread starts: only then all of the process is confined.
    with listening(port, "ClickHouse") as server:
        open_door(home, CLICKHOUSE, f"http://{HOST}:{port}")
        print(hold(clickhouse_limits(home)), file=sys.stderr, flush=True)
        engine = Engine(path)
        try:
            config = uvicorn.Config(
                behind_door(Bridge(engine).app, home), log_level="warning", access_log=False, lifespan="off"
            )
            threading.Thread(target=_watch, args=(engine, path), daemon=True).start()
            uvicorn.Server(config).run(sockets=[server])
        finally:
            engine.close()


def _watch(engine: Engine, path: Path) -> None:
    """Ends the process where its folder is gone: started again, it makes the folder anew."""
    while engine.is_in_place():
        time.sleep(_LOOK_S)
    message = f"{path} was removed while ClickHouse had it open: it is made anew, empty"
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    """``tailrace run clickhouse``: the data in the home, on the port in TAILRACE_PORT (default 8123)."""
    serve(home_dir().absolute(), int(os.environ.get("TAILRACE_PORT", "8123")))
