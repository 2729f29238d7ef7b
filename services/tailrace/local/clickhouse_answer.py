"""The answer to a query over HTTP, sent as it comes; and the query's end where its client has gone.

The first bytes are held back for a moment, so that what fails at once fails with a status, and a short answer has its
length and summary. A query that fails later breaks its answer off: its last chunk never comes.
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio.to_thread
import lz4.frame  # type: ignore[import-untyped]
from backports import zstd
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tailrace.local.clickhouse_blocks import compress
from tailrace.local.clickhouse_engine import Engine, Session
from tailrace.local.clickhouse_errors import EngineError, engine_error
from tailrace.local.clickhouse_limits import limits_of
from tailrace.local.clickhouse_output import EngineAnswer
from tailrace.local.clickhouse_request import ClickHouseRequest

TOO_MANY_STATEMENTS = 202
TOO_LARGE = 396

PIECE = 256 << 10
HELD_BYTES = 1 << 20
HELD_S = 0.25
"""So much of an answer is held back, and for so long after its first byte."""
MOST_HELD = 64 << 20
"""Of an answer that the client wants complete or not at all (``wait_end_of_query``)."""
QUEUE_S = 20.0
"""How long a statement waits for others of its user."""
_KILL_AGAIN_S = 0.1
_SMALL = 1024

Failed = Callable[[EngineError], Response]


class StatementSlots:
    """Lets each user have so many statements running at once."""

    def __init__(self) -> None:
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._threads: anyio.CapacityLimiter | None = None

    async def take(self, user: str) -> asyncio.Semaphore:
        """A slot, to be given back by its ``release``.

        Raises:
            EngineError: none has come for a while.
        """
        slots = self._slots.setdefault(user, asyncio.Semaphore(limits_of(user).statements))
        try:
            await asyncio.wait_for(slots.acquire(), QUEUE_S)
        except TimeoutError:
            raise engine_error(
                TOO_MANY_STATEMENTS,
                f"{limits_of(user).statements} statements of {user} have been running for {QUEUE_S:.0f} s: wait for "
                "one of them, or end it with KILL QUERY",
                "TOO_MANY_SIMULTANEOUS_QUERIES",
            ) from None
        return slots

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a call in a thread of which there are as many as statements may run."""
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(256)
        return await anyio.to_thread.run_sync(call, *arguments, limiter=self._threads)


class StreamedAnswer:
    """A response that runs its statement. It is over when the statement is."""

    def __init__(
        self,
        engine: Engine,
        slots: StatementSlots,
        asked: ClickHouseRequest,
        statement: tuple[str, Session, str],
        headers: dict[str, str],
        failed: Failed,
    ) -> None:
        self._engine = engine
        self._slots = slots
        self._asked = asked
        self._statement = statement
        self._headers = headers
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._statement[1]
        gone = asyncio.ensure_future(_gone(receive))
        try:
            slot = await _unless(gone, self._slots.take(session.user))
            try:
                await _unless(gone, self._slots.in_thread(self._name_format))
                await self._run(scope, receive, send, gone)
            finally:
                slot.release()
        except EngineError as error:
            await self._failed(error)(scope, receive, send)
        except ConnectionError:
            pass
        finally:
            gone.cancel()

    async def _run(self, scope: Scope, receive: Receive, send: Send, gone: asyncio.Future[None]) -> None:
        reading, writing = os.pipe()
        running = asyncio.ensure_future(self._slots.in_thread(self._write, writing))
        reader = asyncio.StreamReader(limit=PIECE)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
        )
        try:
            await self._send(scope, receive, send, _Pieces(reader, gone), running)
        finally:
            pipe.close()
            while not running.done():
                await asyncio.shield(self._slots.in_thread(self._engine.kill, self._statement[1].query_id))
                await asyncio.wait({running}, timeout=_KILL_AGAIN_S)
            with suppress(EngineError):
                running.result()

    def _name_format(self) -> None:
        sql, _, default_format = self._statement
        answer_format = self._engine.answer_format(sql, default_format)
        if answer_format is not None:
            self._headers["X-ClickHouse-Format"], self._headers["Content-Type"] = answer_format

    def _write(self, writing: int) -> EngineAnswer:
        sql, session, default_format = self._statement
        try:
            return self._engine.run(sql, session, default_format, writing)
        finally:
            os.close(writing)

    async def _send(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        pieces: _Pieces,
        running: asyncio.Future[EngineAnswer],
    ) -> None:
        waits = self._asked.is_on("wait_end_of_query")
        held = await pieces.first(MOST_HELD if waits else HELD_BYTES, None if waits else HELD_S)
        if pieces.ended:
            result: EngineAnswer = await running
            headers = self._headers | {"X-ClickHouse-Summary": summary(result, len(held))}
            encoding, encode = _encoder(self._asked, is_small=len(held) < _SMALL)
            body = await self._slots.in_thread(_whole, encode, bytes(held))
            await _response(headers, encoding, body)(scope, receive, send)
            return
        if waits:
            raise engine_error(
                TOO_LARGE,
                f"the answer is larger than {MOST_HELD >> 20} MiB: ask for it without wait_end_of_query",
                "TOO_MANY_ROWS_OR_BYTES",
            )
        encoding, encode = _encoder(self._asked)
        start = _response(self._headers, encoding, None)
        await send({"type": "http.response.start", "status": 200, "headers": start.raw_headers})
        first = bytes(held)
        held.clear()
        await self._send_piece(send, encode, first)
        async for piece in pieces:
            await self._send_piece(send, encode, piece)
        try:
            await running
        except EngineError as error:
            print(f"an answer was broken off: {error}", flush=True)
            raise ConnectionAbortedError from error
        await send({"type": "http.response.body", "body": encode(None)})

    async def _send_piece(self, send: Send, encode: _Encode, piece: bytes) -> None:
        body = piece if encode is _plain else await self._slots.in_thread(encode, piece)
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})


class _Pieces:
    """What comes through the pipe.

    Raises, wherever it is asked for more:
        ConnectionError: the client has gone.
    """

    def __init__(self, reader: asyncio.StreamReader, gone: asyncio.Future[None]) -> None:
        self._reader = reader
        self._gone = gone
        self.ended = False

    async def first(self, most: int, for_s: float | None) -> bytearray:
        """The first bytes: until the end, or until there are ``most``, or ``for_s`` seconds after the first."""
        held = bytearray(await self._read())
        give_up = None if for_s is None else asyncio.get_running_loop().time() + for_s
        while not self.ended and len(held) < most:
            try:
                async with asyncio.timeout_at(give_up):
                    held += await self._read()
            except TimeoutError:
                break
        return held

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.ended:
            if piece := await self._read():
                yield piece

    async def _read(self) -> bytes:
        piece: bytes = await _unless(self._gone, self._reader.read(PIECE))
        self.ended = not piece
        return piece


async def _gone(receive: Receive) -> None:
    """Returns when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unless(gone: asyncio.Future[None], call: Any) -> Any:
    """What the call gives.

    Raises:
        ConnectionError: the client has gone.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ConnectionResetError("the client has gone")
        return task.result()
    finally:
        task.cancel()


_Encode = Callable[[bytes | None], bytes]
"""From a piece to what is sent of it by now; None is the end."""


def _plain(piece: bytes | None) -> bytes:
    return piece or b""


def _whole(encode: _Encode, body: bytes) -> bytes:
    return encode(body) + encode(None)


def _encoder(asked: ClickHouseRequest, is_small: bool = False) -> tuple[str, _Encode]:
    """HTTP's name of the encoding, empty where there is none, and what encodes: into ClickHouse's own blocks, which
    HTTP knows nothing of, and then as HTTP says.
    """
    encode = _blocks if asked.is_on("compress") else _plain
    if asked.is_on("enable_http_compression") and not is_small:
        for name, make in _ENCODERS.items():
            if name in asked.encodings:
                return name, _one_after_the_other(encode, make())
    return "", encode


def _blocks(piece: bytes | None) -> bytes:
    return compress(piece) if piece else b""


def _one_after_the_other(first: _Encode, second: _Encode) -> _Encode:
    def encode(piece: bytes | None) -> bytes:
        inner = first(piece)
        if piece is None:
            return (second(inner) if inner else b"") + second(None)
        return second(inner)

    return encode


def _lz4() -> _Encode:
    frame = lz4.frame.LZ4FrameCompressor(auto_flush=True)
    begin: list[bytes] = [frame.begin()]

    def encode(piece: bytes | None) -> bytes:
        head = begin.pop() if begin else b""
        rest: bytes = frame.flush() if piece is None else frame.compress(piece)
        return head + rest

    return encode


def _with(compressor: Any) -> _Encode:
    def encode(piece: bytes | None) -> bytes:
        done: bytes = compressor.flush() if piece is None else compressor.compress(piece)
        return done

    return encode


_ENCODERS: dict[str, Callable[[], _Encode]] = {
    "lz4": _lz4,
    "zstd": lambda: _with(zstd.ZstdCompressor(1)),
    "gzip": lambda: _with(zlib.compressobj(1, wbits=31)),
    "deflate": lambda: _with(zlib.compressobj(1)),
}


def _response(headers: dict[str, str], encoding: str, body: bytes | None) -> Response:
    if encoding:
        headers = headers | {"Content-Encoding": encoding}
    media_type = headers.get("Content-Type", "text/plain; charset=UTF-8")
    response = Response(body or b"", headers=headers, media_type=media_type)
    if body is None:
        del response.headers["content-length"]
    return response


def summary(result: EngineAnswer, size: int) -> str:
    return json.dumps(
        {
            "read_rows": str(result.rows_read),
            "read_bytes": str(result.bytes_read),
            "written_rows": str(result.rows_written),
            "written_bytes": str(result.bytes_written),
            "total_rows_to_read": "0",
            "result_rows": str(result.rows),
            "result_bytes": str(size),
            "elapsed_ns": str(int(result.seconds * 1e9)),
        }
    )
