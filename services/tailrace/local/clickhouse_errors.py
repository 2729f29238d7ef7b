"""Errors of the local ClickHouse, as a server words them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tailrace.clickhouse.client import DATABASE
from tailrace.local.clickhouse_refused import StatementRefused

_PREFIXES = re.compile(r"(?:Code: \d+\. DB::Exception: )*(?=Code: \d+\. DB::Exception: )")
_SUFFIXES = re.compile(r"(\. \(([A-Z0-9_]+)\))(?: \(version [^()]*(?:\([^()]*\))?\)(?:\. \(\2\))?)+$")
_CODE = re.compile(r"Code: (\d+)\.")
_UNKNOWN_EXCEPTION = 1002
# A name that is no table is a file to the embedded engine, where it stands in this database.
_FILE_WANTED = "READ ON FILE"


class EngineError(Exception):
    """A statement failed. ``code`` is ClickHouse's error code, the message ClickHouse's own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def engine_error(code: int, message: str, name: str) -> EngineError:
    """An error of ours in ClickHouse's form; ``name`` is ClickHouse's word for the code."""
    return EngineError(code, f"Code: {code}. DB::Exception: {message}. ({name})")


@contextmanager
def engine_errors() -> Iterator[None]:
    """What the engine raises, as `EngineError`."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        text = str(error)
        start = text.find("Code: ")
        if start < 0:
            raise
        message = unnested(text[start:])
        if _FILE_WANTED in message:
            raise engine_error(
                60,
                f"Unknown table: a table of the statement is not in the database default. Tables are in {DATABASE}: "
                "name that database in the URL, or before the table",
                "UNKNOWN_TABLE",
            ) from error
        code = _CODE.match(message)
        raise EngineError(int(code[1]) if code else _UNKNOWN_EXCEPTION, message) from error


@contextmanager
def refusals() -> Iterator[None]:
    """What the lists refuse, as `EngineError`."""
    try:
        yield
    except StatementRefused as refused:
        raise engine_error(refused.code, str(refused), refused.name) from None


def unnested(message: str) -> str:
    """The message with one code and one name, those of the innermost error; the engine repeats them."""
    # A syntax error is found by the guard's query, which is not the user's business.
    message = message.split(": In scope SELECT formatQuerySingleLine", 1)[0].strip()
    return _SUFFIXES.sub(r"\1", _PREFIXES.sub("", message, count=1))
