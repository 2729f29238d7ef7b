"""Single values of Avro's binary encoding (Avro 1.11, "Binary Encoding"), for records put together from pieces."""

from __future__ import annotations

import struct

NULL, SOME = b"\x00", b"\x02"
"""The two branches of ``["null", T]``."""

_ONE_BYTE = [bytes([number]) for number in range(0x80)]
_DOUBLE = struct.Struct("<d")


def long(number: int) -> bytes:
    """A zig-zag number of variable length."""
    number = (number << 1) ^ (number >> 63)
    if number < 0x80:
        return _ONE_BYTE[number]
    if 0x8_0000_0000 <= number < 0x400_0000_0000:  # six bytes, as today's times in milliseconds have
        return (
            (number & 0x7F)
            | (number & 0x3F80) << 1
            | (number & 0x1F_C000) << 2
            | (number & 0xFE0_0000) << 3
            | (number & 0x7_F000_0000) << 4
            | (number >> 35) << 40
            | 0x80_8080_8080
        ).to_bytes(6, "little")
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def text(value: str) -> bytes:
    return sized(value.encode())


def sized(data: bytes) -> bytes:
    """Text that is UTF-8 already, or bytes."""
    size = len(data)
    return (_ONE_BYTE[2 * size] if size < 0x40 else long(size)) + data


def double(value: float) -> bytes:
    return _DOUBLE.pack(value)


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it. Raises ``IndexError`` where the data ends within it."""
    byte = data[at]
    at += 1
    zig_zag = byte & 0x7F
    shift = 7
    while byte >= 0x80:
        byte = data[at]
        at += 1
        zig_zag |= (byte & 0x7F) << shift
        shift += 7
    return (zig_zag >> 1) ^ -(zig_zag & 1), at


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """The text at a position, and the position after it. Raises as `read_long` does, and ``UnicodeDecodeError``."""
    size, at = read_long(data, at)
    end = at + size
    if size < 0 or end > len(data):
        raise IndexError("text beyond the end")
    return data[at:end].decode(), end
