"""The ClickHouse engine in this process (chdb): one folder, one engine, a fresh handle for every statement.

A handle costs 0.2 ms and carries everything that leaks between statements otherwise: settings, ``readonly``,
the current database, and the partial output of a query that failed. So none is ever used twice.
"""

from __future__ import annotations

import fcntl
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from tailrace.kit.credentials import OPS
from tailrace.kit.errors import TailraceError
from tailrace.local.clickhouse_guard import Guard, Parse
from tailrace.local.clickhouse_kinds import KILL
from tailrace.local.clickhouse_refused import Refused
from tailrace.local.clickhouse_users import ROLES, write_configuration

_CODE = re.compile(r"Code: (\d+)\.")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f"}

UNKNOWN_SETTING = 115

# Canonical forms that are kept: services send the same few statements again and again.
_KEPT_FORMS, _LONGEST_KEPT = 1024, 16 * 1024


class EngineError(Exception):
    """A statement failed. ``code`` is ClickHouse's error code, the message ClickHouse's own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Session:
    """What surrounds one statement: database, settings, and the values of its ``{name:Type}`` parameters.

    Attributes:
        user: the HTTP user who sends it: it runs in that user's role.
    """

    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    readonly: bool = False
    user: str = OPS


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


class Judge(Protocol):
    """What decides on statements: `Guard`. Each method raises `Refused`."""

    def check(self, canonical: str, user: str, parameters: Mapping[str, str]) -> None: ...
    def check_settings(self, settings: Mapping[str, str]) -> None: ...
    def check_format(self, name: str) -> None: ...


class Engine:
    """Owns a folder of ClickHouse data.

    Args:
        path: the folder.
        guard: makes what decides on statements; tests of the other walls have one that refuses nothing.

    Raises:
        TailraceError: another process owns the folder, or it cannot be written.
    """

    def __init__(self, path: Path, guard: Callable[[Iterable[str], Parse], Judge] = Guard) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path / "lock")
            self._address = f"{path / 'engine'}?config-file={write_configuration(path)}"
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
        self._forms: OrderedDict[str, str] = OrderedDict()
        self._known_settings = frozenset(self._names("SELECT name FROM system.settings"))
        self._guard = guard(
            self._names(
                "SELECT name FROM system.functions UNION ALL SELECT name FROM system.table_functions"
            ),
            self._parse,
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
            canonical = self._check(handle, sql, session)
            with _refusals():
                self._guard.check_format(default_format)
            self._enter(handle, session)
            if killing := KILL.fullmatch(canonical):
                # Queries have ids of the engine's own: none is the one that a client gave its query.
                sql = f"{killing[1]} TEST{killing[2] or ''}"
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

    def _check(self, handle: Any, sql: str, session: Session) -> str:
        """The statement in canonical form: exactly one, and one that its user may send, with these settings."""
        canonical = self._canonical(handle, sql)
        unknown = [name for name in session.settings if name not in self._known_settings]
        if unknown:
            raise EngineError(
                UNKNOWN_SETTING,
                f"Code: {UNKNOWN_SETTING}. DB::Exception: Unknown setting {unknown[0]!r}. (UNKNOWN_SETTING)",
            )
        with _refusals():
            if session.user not in ROLES:
                raise Refused(f"the user {session.user} has nothing to do with ClickHouse")
            self._guard.check(canonical, session.user, session.parameters)
            self._guard.check_settings(session.settings)
        return canonical

    def _canonical(self, handle: Any, sql: str) -> str:
        """What the engine's own parser makes of the text; an error where that is not exactly one statement."""
        with self._opening:
            if sql in self._forms:
                self._forms.move_to_end(sql)
                return self._forms[sql]
        escaped = "".join(_ESCAPES.get(c, c) for c in sql)
        parsed = handle.query("SELECT formatQuerySingleLine({q:String})", "TSVRaw", params={"q": escaped})
        canonical: str = parsed.bytes().decode(errors="replace").rstrip("\n")
        if len(sql) <= _LONGEST_KEPT:
            with self._opening:
                self._forms[sql] = canonical
                if len(self._forms) > _KEPT_FORMS:
                    self._forms.popitem(last=False)
        return canonical

    def _parse(self, expression: str) -> str:
        """The canonical form of the statement that an expression of literals gives."""
        with closing(self._open()) as handle, _engine_errors():
            parsed = handle.query(f"SELECT formatQuerySingleLine({expression})", "TSVRaw")
            text: str = parsed.bytes().decode(errors="replace")
            return text.rstrip("\n")

    def _enter(self, handle: Any, session: Session) -> None:
        handle.query(f"SET ROLE {ROLES[session.user]}")
        if session.database:
            handle.query(f"USE {_identifier(session.database)}")
        assignments = [f"{name} = {_text(value)}" for name, value in session.settings.items()]
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


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise EngineError(
            refused.code, f"Code: {refused.code}. DB::Exception: {refused}. ({refused.name})"
        ) from None


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


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
