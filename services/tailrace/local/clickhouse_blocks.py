"""ClickHouse's own compressed blocks, which its clients ask for by ``compress=1`` and send by ``decompress=1``.

A block is a checksum (CityHash128, version 1.0.2, of all that follows), the method in one byte, the sizes of the block
(with method and sizes) and of what it holds in four bytes each, and the data.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import lz4.block  # type: ignore[import-untyped]
from backports import zstd
from clickhouse_cityhash.cityhash import CityHash128  # type: ignore[import-untyped]

from tailrace.local.clickhouse_errors import EngineError, engine_error

NONE, LZ4, ZSTD = 0x02, 0x82, 0x90
LARGEST = 64 << 20
"""Bytes that a block may hold, or take. Clients make blocks of 1 MiB, and of 10 MiB where they are told to."""

_CHECKSUM = struct.Struct("<QQ")
_HEAD = struct.Struct("<BII")
_LOW = (1 << 64) - 1


def checksum(block: bytes) -> bytes:
    """Of a block from its method on."""
    value = CityHash128(block)
    # The library puts the half first that goes first.
    return _CHECKSUM.pack(value >> 64, value & _LOW)


def compress(data: bytes) -> bytes:
    """One LZ4 block."""
    packed: bytes = lz4.block.compress(data, store_size=False)
    block = _HEAD.pack(LZ4, _HEAD.size + len(packed), len(data)) + packed
    return checksum(block) + block


class BlockReader:
    """From pieces of a stream of blocks, cut anywhere, to what the blocks hold."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def __call__(self, piece: bytes) -> Iterator[bytes]:
        """What each block holds by itself: together the blocks of a small piece may hold gigabytes.

        Raises:
            EngineError: a block is too large, is packed by an unknown method, or is not what its sender packed.
        """
        self._rest += piece
        while (block := self._next()) is not None:
            yield block

    def end(self) -> None:
        """
        Raises:
            EngineError: the stream ends within a block.
        """
        if self._rest:
            raise engine_error(33, "the body ends within a compressed block", "CANNOT_READ_ALL_DATA")

    def _next(self) -> bytes | None:
        start = _CHECKSUM.size
        if len(self._rest) < start + _HEAD.size:
            return None
        method, size, plain_size = _HEAD.unpack_from(self._rest, start)
        if method not in _METHODS:
            raise engine_error(
                89,
                f"the method {method:#04x} of a compressed block is unknown: it is LZ4, ZSTD or none",
                "UNKNOWN_COMPRESSION_METHOD",
            )
        if not _HEAD.size <= size <= LARGEST or plain_size > LARGEST:
            raise engine_error(
                39,
                f"a compressed block of {size:,} bytes for {plain_size:,} is refused: send blocks of at most "
                f"{LARGEST >> 20} MiB",
                "TOO_LARGE_SIZE_COMPRESSED",
            )
        if len(self._rest) < start + size:
            return None
        block = bytes(self._rest[start : start + size])
        expected = bytes(self._rest[:start])
        del self._rest[: start + size]
        if checksum(block) != expected:
            raise engine_error(40, "a compressed block does not have its checksum", "CHECKSUM_DOESNT_MATCH")
        return _unpacked(method, block[_HEAD.size :], plain_size)


def _unpacked(method: int, packed: bytes, size: int) -> bytes:
    plain = b""
    failed: Exception | EngineError | None = None
    try:
        plain = _METHODS[method](packed, size)
    except (lz4.block.LZ4BlockError, zstd.ZstdError, EOFError) as error:
        failed = error
    if failed is not None or len(plain) != size:
        why = f": {failed}" if failed else ""
        raise engine_error(271, f"a compressed block cannot be decompressed{why}", "CANNOT_DECOMPRESS")
    return plain


def _of_lz4(packed: bytes, size: int) -> bytes:
    plain: bytes = lz4.block.decompress(packed, uncompressed_size=size)
    return plain


def _of_zstd(packed: bytes, size: int) -> bytes:
    # One byte more than there should be: a block that holds more is found out, whatever it claims.
    return zstd.ZstdDecompressor().decompress(packed, size + 1)


_METHODS = {NONE: lambda packed, size: packed, LZ4: _of_lz4, ZSTD: _of_zstd}
