"""Texts of statements: what stands for bytes that are no UTF-8, and how texts are quoted.

ClickHouse takes any bytes in its strings. In a `str` here a byte that is no UTF-8 is a lone surrogate, as Python has it
(`surrogateescape`).
"""

from __future__ import annotations

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f"}
_FIRST_BYTE, _LAST_BYTE, _BYTES = "\udc80", "\udcff", 0xDC00


def text_of(statement: bytes) -> str:
    return statement.decode(errors="surrogateescape")


def bytes_of(statement: str) -> bytes:
    return statement.encode(errors="surrogateescape")


def as_parameter(text: str) -> str:
    """The text as the value of a ``{name:String}`` parameter."""
    return readable("".join(_ESCAPES.get(character, character) for character in text))


def readable(value: str) -> str:
    """A parameter's value in which bytes that are no UTF-8 are escaped: the engine takes values as UTF-8 only."""
    if value.isascii():
        return value
    return "".join(
        f"\\x{ord(character) - _BYTES:02x}" if _FIRST_BYTE <= character <= _LAST_BYTE else character
        for character in value
    )


def identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
