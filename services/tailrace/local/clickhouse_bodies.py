"""Bodies of requests as they were before their client packed them: by HTTP's encodings, by ClickHouse's own blocks."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import lz4.frame  # type: ignore[import-untyped]
from backports import zstd
from starlette.requests import Request

from tailrace.local.clickhouse_blocks import BlockReader
from tailrace.local.clickhouse_errors import engine_error

UNKNOWN_COMPRESSION = 89

_CORRUPT: tuple[type[Exception], ...] = (zlib.error, RuntimeError, ValueError, EOFError, zstd.ZstdError)


async def unpacked(request: Request, has_blocks: bool) -> AsyncIterator[bytes]:
    """The body in pieces.

    Args:
        has_blocks: whether it is in ClickHouse's own blocks (``decompress=1``), within what HTTP says of it.

    Raises:
        EngineError: it is not packed as the request says.
    """
    pieces = _by_http(request)
    if not has_blocks:
        async for piece in pieces:
            yield piece
        return
    reader = BlockReader()
    async for piece in pieces:
        for block in reader(piece):
            yield block
    reader.end()


async def _by_http(request: Request) -> AsyncIterator[bytes]:
    name = request.headers.get("content-encoding", "identity").lower()
    if name in ("", "identity"):
        async for piece in request.stream():
            yield piece
        return
    encoding = _ENCODINGS.get(name)
    if encoding is None:
        raise engine_error(
            UNKNOWN_COMPRESSION, f"unknown Content-Encoding {name!r}", "UNKNOWN_COMPRESSION_METHOD"
        )
    frames = _Frames(encoding.decoder)
    try:
        async for piece in request.stream():
            if piece:
                yield frames(piece)
        frames.end()
    except _CORRUPT as error:
        raise engine_error(encoding.code, f"the body is no valid {name}: {error}", encoding.error) from None


class _Frames:
    """Decompresses a stream of frames: clients compress each block of an insert by itself."""

    def __init__(self, decompressor: Callable[[], Any]) -> None:
        self._new = decompressor
        self._frame = decompressor()
        self._is_begun = False

    def __call__(self, piece: bytes) -> bytes:
        plain = bytearray()
        self._is_begun = True
        while piece:
            if self._frame.eof:
                self._frame = self._new()
            plain += self._frame.decompress(piece)
            piece = self._frame.unused_data if self._frame.eof else b""
        return bytes(plain)

    def end(self) -> None:
        """
        Raises:
            EOFError: the stream ends within a frame.
        """
        if self._is_begun and not self._frame.eof:
            raise EOFError("it ends too early")


class _Encoding(NamedTuple):
    """``code`` and ``error`` are ClickHouse's for a body that is not in this encoding."""

    decoder: Callable[[], Any]
    code: int
    error: str


_INFLATE = _Encoding(lambda: zlib.decompressobj(wbits=47), 354, "ZLIB_INFLATE_FAILED")
_ENCODINGS = {
    "gzip": _INFLATE,
    "deflate": _INFLATE,
    "lz4": _Encoding(lz4.frame.LZ4FrameDecompressor, 618, "LZ4_DECODER_FAILED"),
    "zstd": _Encoding(zstd.ZstdDecompressor, 561, "ZSTD_DECODER_FAILED"),
}
