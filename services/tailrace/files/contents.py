"""A file's bytes: which content it is, and its text as UTF-8 with one kind of line end, which every reader takes."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tailrace.errors import TailraceError, UsageError

_CHUNK = 1 << 20
_GZIP, _ZIP, _OLE = b"\x1f\x8b", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_PARQUET = b"PAR1"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = "cp1252"
_NOT_WESTERN = b"\x81\x8d\x8f\x90\x9d"
"""Bytes that windows-1252 has no letter for."""


@dataclass(frozen=True)
class Text:
    """A file's text.

    Attributes:
        path: of the same text in UTF-8, without a byte order mark, with one kind of line end.
        encoding: of the file itself.
        note: what a person should know of the encoding; empty where it is UTF-8.
    """

    path: Path
    encoding: str
    note: str = ""


@dataclass(frozen=True)
class _Look:
    """What one pass over the bytes shows."""

    is_utf8: bool
    bad_line: int
    is_western: bool
    null_line: int
    has_mixed_ends: bool


def content_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises:
        TailraceError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TailraceError(f"{path}: cannot be read: {error.strerror}") from None


def is_parquet(path: Path) -> bool:
    return _beginning(path) == _PARQUET


@contextmanager
def text_of(path: Path, encoding: str | None = None) -> Iterator[Text]:
    """The file as text, for as long as the block lasts.

    Args:
        path: the file; gzip is unpacked.
        encoding: a name that Python knows; without one it is found: a byte order mark, UTF-8, UTF-16 by its zero
            bytes, and otherwise Western Europe's windows-1252.

    Raises:
        TailraceError: the file cannot be read, is no text, or is not of the encoding; names line and remedy.
        UsageError: nobody knows the encoding.
    """
    beginning = _beginning(path)
    if beginning.startswith((_ZIP, _OLE)):
        raise TailraceError(f"{path}: is a spreadsheet or an archive: export it as CSV, or unpack it first")
    with tempfile.TemporaryDirectory(prefix="tailrace-") as folder:
        source = path
        if beginning.startswith(_GZIP):
            source = Path(folder) / "unpacked"
            _unpack(path, source)
        name = _known(encoding or _by_first_bytes(source) or "utf-8")
        look = _look(source, path, name)
        note = ""
        if not look.is_utf8 and encoding is None and name == "utf-8":
            name = _WESTERN if look.is_western else "latin-1"
            note = (
                f"line {look.bad_line} is not UTF-8: the file is read as {name}; where letters look wrong, "
                "name the encoding with --encoding"
            )
        elif not look.is_utf8:
            raise TailraceError(
                f"{path}: line {look.bad_line} is not {name}: name the encoding with --encoding, "
                "or save the file as UTF-8"
            )
        if look.null_line and name not in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
            raise TailraceError(f"{path}: line {look.null_line} has a zero byte: a file of text has none")
        # DuckDB takes a path for a pattern: under this name no bracket or star of the file's own name counts.
        plain = Path(folder) / "data.csv"
        if name == "utf-8" and not look.has_mixed_ends:
            plain.symlink_to(source.resolve())
        else:
            _rewrite(source, plain, name, path)
        yield Text(plain, "utf-8" if name == "utf-8-sig" else name, note)


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise TailraceError(f"{path}: cannot be read: {error.strerror}") from None


def _by_first_bytes(path: Path) -> str | None:
    with path.open("rb") as file:
        first = file.read(2_000)
    for mark, name in _MARKS:
        if first.startswith(mark):
            return name
    even, odd = first[::2], first[1::2]
    if len(first) >= 4 and odd.count(0) > 0.6 * len(odd) and not even.count(0):
        return "utf-16-le"
    if len(first) >= 4 and even.count(0) > 0.6 * len(even) and not odd.count(0):
        return "utf-16-be"
    return None


def _known(encoding: str) -> str:
    """The encoding as Python names it."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise UsageError(
            f"--encoding {encoding!r} is not known: write it like utf-8, cp1252 or utf-16"
        ) from None


def _unpack(packed: Path, to: Path) -> None:
    try:
        with gzip.open(packed, "rb") as source, to.open("wb") as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)
    except (OSError, EOFError) as error:
        raise TailraceError(f"{packed}: is damaged gzip: {error}") from None


def _look(source: Path, path: Path, encoding: str) -> _Look:
    decoder = codecs.getincrementaldecoder(encoding)()
    bad_line = null_line = 0
    is_western, lines, crs, lfs, pairs, before = True, 1, 0, 0, 0, b""
    for chunk in _chunks(source):
        crs, lfs = crs + chunk.count(b"\r"), lfs + chunk.count(b"\n")
        pairs += (before + chunk).count(b"\r\n")
        before = chunk[-1:]
        if not bad_line:
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                bad_line = lines + error.object[: error.start].count(b"\n")
        # In each chunk: what is UTF-8 up to the line that is not is read as windows-1252, too.
        is_western = is_western and not any(byte in chunk for byte in _NOT_WESTERN)
        if not null_line and (at := chunk.find(0)) >= 0:
            null_line = lines + chunk[:at].count(b"\n")
        lines += chunk.count(b"\n")
    if not bad_line:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            bad_line = lines
    kinds = (pairs > 0) + (lfs > pairs) + (crs > pairs)
    return _Look(not bad_line, bad_line, is_western, null_line, kinds > 1)


def _chunks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _rewrite(source: Path, to: Path, encoding: str, path: Path) -> None:
    """The text in UTF-8 with line feeds: Python's universal newlines."""
    try:
        with source.open(encoding=encoding) as text, to.open("w", encoding="utf-8", newline="") as file:
            while chunk := text.read(_CHUNK):
                file.write(chunk.replace("\0", ""))
    except UnicodeError as error:
        raise TailraceError(f"{path}: is not {encoding}: {error}") from None
