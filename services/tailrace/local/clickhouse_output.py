"""What a statement answers: in which format, and where it goes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tailrace.local.clickhouse_errors import engine_error
from tailrace.local.clickhouse_native import UnknownType, versioned
from tailrace.local.clickhouse_tokens import Tokens

QUERY = re.compile(r"\(*(?:SELECT|WITH)\b")
_ANSWERS = re.compile(r"\(*(?:SELECT|WITH|SHOW|DESCRIBE|EXISTS|EXPLAIN|CHECK|KILL)\b")


@dataclass(frozen=True)
class EngineAnswer:
    """
    Attributes:
        body: the answer, where it was not written into a pipe.
        rows: of the answer.
        rows_read: of tables and functions; with their bytes.
    """

    body: bytes
    rows: int = 0
    rows_read: int = 0
    bytes_read: int = 0
    rows_written: int = 0
    bytes_written: int = 0
    seconds: float = 0.0


def format_of(canonical: str, default: str) -> str | None:
    """The format of the statement's answer; None for a statement that answers nothing."""
    if not _ANSWERS.match(canonical):
        return None
    tokens = Tokens(canonical)
    return next((tokens[place + 1].name for place in _formats(tokens)), default)


def ways_to_end(canonical: str, default_format: str) -> Iterator[tuple[str, str]]:
    """Where the part of a query may begin that says what becomes of its answer: the text before, and from there on."""
    tokens = Tokens(canonical)
    for place in _formats(tokens):
        yield canonical[: tokens[place].start - 1], " " + canonical[tokens[place].start :]
    yield canonical, f" FORMAT {default_format}"


def _formats(tokens: Tokens) -> Iterator[int]:
    """Where FORMAT stands with a name behind it, the last first."""
    for place in reversed(range(len(tokens))):
        token, name = tokens[place], tokens[place + 1]
        if token.text == "FORMAT" and token.kind == "word" and name.is_name and name.text != "AS":
            yield place


def answer_of(done: Any, out: int | None) -> EngineAnswer:
    """What the engine says of a statement that it has run; its answer goes into the pipe where there is one."""
    return EngineAnswer(
        body=delivered(done.bytes() or b"", out),
        rows=done.rows_read(),
        rows_read=done.storage_rows_read(),
        bytes_read=done.storage_bytes_read(),
        rows_written=done.rows_written(),
        bytes_written=done.bytes_written(),
        seconds=done.elapsed(),
    )


def native_answer(results: Iterable[Any], are_blocks: bool, version: int, out: int | None) -> EngineAnswer:
    """Results in the format Native, in the form for a client of this version.

    Args:
        are_blocks: whether each result is one block.

    Raises:
        EngineError: a column is of a type that cannot be written in that form.
    """
    body, rows, rows_read, bytes_read, seconds = bytearray(), 0, 0, 0, 0.0
    for result in results:
        try:
            piece = versioned(result.bytes() or b"", version, are_blocks)
        except UnknownType as error:
            raise engine_error(
                48,
                f"{error} cannot be written for a client with client_protocol_version {version}: ask for it in another "
                "format than Native, or cast it by toString",
                "NOT_IMPLEMENTED",
            ) from None
        body += delivered(piece, out)
        rows += result.rows_read()
        # These grow from one result to the next.
        rows_read, bytes_read = result.storage_rows_read(), result.storage_bytes_read()
        seconds = result.elapsed()
    return EngineAnswer(bytes(body), rows, rows_read, bytes_read, seconds=seconds)


def delivered(body: bytes, out: int | None) -> bytes:
    """The answer; nothing of it where it goes into a pipe."""
    if out is None:
        return body
    rest = memoryview(body)
    with suppress(BrokenPipeError):  # nobody wants it any more
        while rest:
            rest = rest[os.write(out, rest) :]
    return b""
