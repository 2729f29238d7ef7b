"""ClickHouse's HTTP interface in front of the engine, for one machine; any ClickHouse client can talk to it.

Understands what clients send: the statement in the URL or the body, data after ``FORMAT name`` (streamed, in any input
format), bodies and answers that are compressed as HTTP says or in ClickHouse's own blocks, parameters, settings and
``database`` in the URL, a form or headers, tables in a form, GET as read-only. Who may ask at all is the door's to say
(see `clickhouse_door`), which puts the user into the request's scope. There are no sessions: ``session_id`` alone is
accepted; ``session_check``, and statements that a session would have to keep, are errors. Answers are sent as they come
(see `clickhouse_answer`), and a statement ends when its client has gone.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tailrace.access.home_servers import CLICKHOUSE, open_door
from tailrace.confinement.profiles import clickhouse_limits, hold
from tailrace.connection import home_dir
from tailrace.local.clickhouse_answer import StatementSlots, StreamedAnswer, summary
from tailrace.local.clickhouse_door import behind_door
from tailrace.local.clickhouse_engine import Engine, Session
from tailrace.local.clickhouse_errors import EngineError
from tailrace.local.clickhouse_output import EngineAnswer
from tailrace.local.clickhouse_request import query_id_of, read
from tailrace.local.clickhouse_statuses import status_of
from tailrace.local.clickhouse_texts import bytes_of, text_of
from tailrace.local.ports import HOST, listening

_LOOK_S = 1.0

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
            return Insert(text_of(statement), "Values", token.end())
        if word == b"FORMAT":
            form = _FORMAT_END.match(text, token.end())
            if form is None:
                return None
            return Insert(text_of(statement), form.group(1).decode(), form.end())
    return None


class Bridge:
    """Answers requests from one engine."""

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
        query_id = query_id_of(request)
        try:
            return await self._answer(request, query_id)
        except EngineError as error:
            return self._error(error, query_id)

    async def _answer(self, request: Request, query_id: str) -> Response | StreamedAnswer:
        asked = await read(request)
        session = asked.session(
            str(request.scope["user"]), query_id, is_read_only=request.method in ("GET", "HEAD")
        )
        head = bytearray()
        if of_url := asked.parameters.get("query"):
            head += bytes_of(of_url) + b"\n"
        async for piece in asked.body:
            head += piece
            if len(head) >= _HEAD:
                break
        headers = self._headers(query_id)
        if not head.strip():
            return PlainTextResponse("Ok.\n", headers=headers)
        # Splitting sees the first part only: data may be gigabytes.
        insert = split_insert(bytes(head[:_HEAD]))
        if insert is not None:
            result = await self._insert(insert, bytes(head[insert.data_at :]), asked.body, session)
            return Response(b"", headers=headers | {"X-ClickHouse-Summary": summary(result, 0)})
        async for piece in asked.body:
            head += piece
        sql = text_of(bytes(head)).rstrip().rstrip(";")
        statement = (sql, session, asked.parameters.get("default_format") or "TabSeparated")
        return StreamedAnswer(
            self._engine, self._slots, asked, statement, headers, lambda error: self._error(error, query_id)
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
                result: EngineAnswer = await in_thread(stream.finish)
                return result
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
        headers = self._headers(query_id) | {"X-ClickHouse-Exception-Code": str(error.code)}
        return PlainTextResponse(
            bytes_of(f"{error} (version {self._engine.version})\n"),
            status_code=status_of(error.code),
            headers=headers,
        )


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
    print(
        f"{path} was removed while ClickHouse had it open: it is made anew, empty",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def main() -> None:
    """``tailrace run clickhouse``: the data in the home, on the port in TAILRACE_PORT (default 8123)."""
    serve(home_dir().absolute(), int(os.environ.get("TAILRACE_PORT", "8123")))
