"""The ClickHouse engine in this process (chdb): one folder, one engine, a fresh handle for every statement.

A handle costs 0.2 ms and carries everything that leaks between statements otherwise: settings, ``readonly``,
the current database, and the partial output of a query that failed. So none is ever used twice.
"""

from __future__ import annotations

import fcntl
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

from tailrace.kit.errors import TailraceError
from tailrace.local.clickhouse_guard import FIXED_SETTINGS, GRANTS, Guard, Refused

_CODE = re.compile(r"Code: (\d+)\.")
_SETTING_NAME = re.compile(r"[A-Za-z_]\w*")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f"}

ACCESS_DENIED = 497
UNKNOWN_SETTING = 115


class EngineError(Exception):
    """A statement failed. ``code`` is ClickHouse's error code, the message ClickHouse's own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Session:
    """What surrounds one statement: database, settings, and the values of its ``{name:Type}`` parameters."""

    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    readonly: bool = False


@dataclass(frozen=True)
class Result:
    body: bytes
    rows: int = 0
    bytes_read: int = 0
    rows_written: int = 0
    bytes_written: int = 0
    seconds: float = 0.0


class Insertion:
    """Data on its way into a table; nothing of it is there before ``finish`` returns."""

    def __init__(self, handle: Any, stream: Any) -> None:
        self._handle = handle
        self._stream = stream

    def append(self, data: bytes) -> None:
        with _engine_errors():
            self._stream.append(data)

    def finish(self) -> Result:
        with _engine_errors():
            done = self._stream.finish()
        return Result(
            b"", rows_written=done.rows_written, bytes_written=done.bytes_written, seconds=done.elapsed
        )

    def close(self) -> None:
        """Gives the insert up where it is not finished."""
        try:
            with suppress(RuntimeError):
                self._stream.cancel()
        finally:
            self._handle.close()


class Engine:
    """Owns a folder of ClickHouse data.

    Raises:
        TailraceError: another process owns the folder, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path / "lock")
            self._address = f"{path / 'engine'}?config-file={_configuration(path)}"
        except PermissionError as error:
            raise TailraceError(
                f"cannot write ClickHouse's data to {path}: {error.strerror}; "
                "choose another folder with --home"
            ) from error
        from chdb.state.sqlitelike import Connection

        self._connect = Connection
        self._opening = threading.Lock()
        # The engine lives as long as one handle does.
        self._anchor = self._open()
        self._guard = Guard(
            self._names("SELECT name FROM system.table_functions"),
            self._names("SELECT name FROM system.functions WHERE origin = 'System'"),
        )
        self.version, self.timezone = self._names("SELECT arrayJoin([version(), timezone()])")

    def close(self) -> None:
        self._anchor.close()
        self._lock.close()

    def run(self, sql: str, session: Session, default_format: str = "TabSeparated") -> Result:
        """Runs one statement that carries no data.

        Raises:
            EngineError: it is refused or failed.
        """
        with closing(self._open()) as handle, _engine_errors():
            self._check(handle, sql, session)
            self._enter(handle, session)
            done = handle.query(sql, default_format, params=dict(session.parameters))
            return Result(
                body=done.bytes() or b"",
                rows=done.rows_read(),
                bytes_read=done.bytes_read(),
                rows_written=done.rows_written(),
                bytes_written=done.bytes_written(),
                seconds=done.elapsed(),
            )

    def insert(self, statement: str, data_format: str, session: Session) -> Insertion:
        """Opens ``INSERT INTO ...`` for data in ``data_format`` that comes in pieces.

        Raises:
            EngineError: it is refused, or there is no such table.
        """
        handle = self._open()
        try:
            with _engine_errors():
                self._check(handle, f"{statement} FORMAT {data_format}", session)
                self._enter(handle, session)
                return Insertion(handle, handle.send_insert(statement, data_format))
        except BaseException:
            handle.close()
            raise

    def _check(self, handle: Any, sql: str, session: Session) -> None:
        quoted = "".join(_ESCAPES.get(c, c) for c in sql)
        canonical = handle.query("SELECT formatQuerySingleLine({q:String})", "TSVRaw", params={"q": quoted})
        try:
            text = canonical.bytes().decode(errors="replace").rstrip("\n")
            self._guard.check(text, session.parameters)
        except Refused as refused:
            raise EngineError(
                ACCESS_DENIED, f"Code: {ACCESS_DENIED}. DB::Exception: {refused}. (ACCESS_DENIED)"
            ) from None

    def _enter(self, handle: Any, session: Session) -> None:
        if session.database:
            handle.query(f"USE {_identifier(session.database)}")
        assignments = []
        for name, value in session.settings.items():
            if not _SETTING_NAME.fullmatch(name):
                raise EngineError(
                    UNKNOWN_SETTING,
                    f"Code: {UNKNOWN_SETTING}. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)",
                )
            assignments.append(f"{name} = {_text(value)}")
        if session.readonly and not any(a.startswith("readonly ") for a in assignments):
            assignments.append("readonly = 2")
        # Once `readonly` holds nothing else can be set.
        assignments.sort(key=lambda a: a.startswith("readonly "))
        if assignments:
            handle.query("SET " + ", ".join(assignments))

    def _open(self) -> Any:
        with self._opening:
            return self._connect(self._address)

    def _names(self, sql: str) -> list[str]:
        found: bytes = self._anchor.query(sql, "TSVRaw").bytes()
        return found.decode().split()


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        message = str(error)
        start = message.find("Code: ")
        if start < 0:
            raise
        # A syntax error is found by the guard's query, which is not the user's business.
        message = message[start:].split(": In scope SELECT formatQuerySingleLine", 1)[0].strip()
        found = _CODE.match(message)
        raise EngineError(int(found.group(1)) if found else 1000, message) from error


def _lock(path: Path) -> IO[str]:
    held = path.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise TailraceError(
            f"another process already serves the ClickHouse data in {path.parent}; "
            "stop it with `tailrace down`, or choose another folder with --home"
        ) from None
    return held


def _configuration(path: Path) -> Path:
    fixed = "".join(f"<{name}>{value}</{name}>" for name, value in FIXED_SETTINGS.items())
    constant = "".join(f"<{name}><const/></{name}>" for name in FIXED_SETTINGS)
    grants = "".join(f"<query>{escape(grant)}</query>" for grant in GRANTS)
    users = path / "users.xml"
    users.write_text(
        f"<clickhouse><profiles><default>{fixed}<constraints>{constant}</constraints></default></profiles>"
        "<users><default><password></password><networks><ip>::/0</ip></networks><profile>default</profile>"
        f"<quota>default</quota><grants>{grants}</grants></default></users>"
        "<quotas><default></default></quotas></clickhouse>\n"
    )
    configuration = path / "config.xml"
    configuration.write_text(
        f"<clickhouse><users_config>{escape(str(users.resolve()))}</users_config></clickhouse>\n"
    )
    return configuration.resolve()


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
