"""The ClickHouse engine in this process (chdb): one folder, one engine, a fresh handle for every statement.

A handle costs 0.2 ms and carries everything that leaks between statements otherwise: settings, ``readonly``,
the current database, and the partial output of a query that failed. So none is ever used twice.

What a query answers is written into a pipe by the engine, as it comes, in whatever format: the engine's own stream
of results would format each block as an answer of its own. The engine gives each query an id of its own; the client's
is in a setting that has no effect here and that no client can set, and by that a query is killed.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from tailrace.access.credentials import OPS
from tailrace.clickhouse.client import DATABASE
from tailrace.errors import TailraceError
from tailrace.local.clickhouse_damage import set_aside
from tailrace.local.clickhouse_errors import engine_error, engine_errors, refusals
from tailrace.local.clickhouse_guard import Guard, Parse
from tailrace.local.clickhouse_kinds import KILL, check_use
from tailrace.local.clickhouse_limits import limits_of
from tailrace.local.clickhouse_output import (
    QUERY,
    EngineAnswer,
    answer_of,
    format_of,
    native_answer,
    ways_to_end,
)
from tailrace.local.clickhouse_refused import StatementRefused
from tailrace.local.clickhouse_texts import as_parameter, bytes_of, identifier, literal, readable, text_of
from tailrace.local.clickhouse_users import ROLES, TAG, write_configuration

_NO_TEXT = "application/octet-stream"
UNKNOWN_FORMAT = 73
UNKNOWN_SETTING = 115
SAME_ID = 216

_KILL_AGAIN_S = 0.1

# Canonical forms that are kept: services send the same few statements again and again.
_KEPT_FORMS, _LONGEST_KEPT = 1024, 16 * 1024


class ExternalTable(NamedTuple):
    """A table that a client sends with its statement, and that ends with it.

    Attributes:
        structure: its columns as in CREATE TABLE.
        data: in ``data_format``.
    """

    name: str
    structure: str
    data_format: str
    data: bytes


@dataclass(frozen=True)
class Session:
    """What surrounds one statement: database, settings, and the values of its ``{name:Type}`` parameters.

    Attributes:
        user: the HTTP user who sends it: it runs in that user's role, and within that user's limits.
        query_id: by which it can be killed; empty where it cannot.
        is_named: whether the client believes that its next statement finds what this one sets.
        client_version: of the client's protocol, which decides on the form of the format Native; 0 for the plain one.
    """

    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    readonly: bool = False
    user: str = OPS
    query_id: str = ""
    is_named: bool = False
    client_version: int = 0
    tables: tuple[ExternalTable, ...] = ()


class Insertion:
    """Data on its way into a table; nothing of it is there before ``finish`` returns."""

    def __init__(self, handle: Any, stream: Any, end: Callable[[], object]) -> None:
        self._handle = handle
        self._stream = stream
        self._end = end

    def append(self, data: bytes) -> None:
        with engine_errors():
            self._stream.append(data)

    def finish(self) -> EngineAnswer:
        with engine_errors():
            done = self._stream.finish()
        return EngineAnswer(
            b"", rows_written=done.rows_written, bytes_written=done.bytes_written, seconds=done.elapsed
        )

    def close(self) -> None:
        """Gives the insert up where it is not finished."""
        try:
            with suppress(RuntimeError):
                self._stream.cancel()
        finally:
            self._handle.close()
            self._end()


class _Running(NamedTuple):
    """A statement that runs, in canonical form, and whose it is."""

    user: str
    sql: str


class Judge(Protocol):
    """What decides on statements: `Guard`. Each method raises `StatementRefused`."""

    def check(self, canonical: str, user: str, parameters: Mapping[str, str]) -> None: ...
    def check_settings(self, settings: Mapping[str, str]) -> None: ...
    def check_format(self, name: str) -> None: ...
    def columns(self, structure: str) -> str: ...


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

        self._path = path
        self._connect = Connection
        self._opening = threading.Lock()
        # The engine lives as long as one handle does.
        try:
            self._anchor = self._open()
        except RuntimeError as error:
            raise TailraceError(set_aside(path / "engine", str(error))) from error
        self._forms: OrderedDict[str, str] = OrderedDict()
        self._running: dict[str, _Running] = {}
        self._known_settings = frozenset(self._names("SELECT name FROM system.settings"))
        self._guard = guard(
            self._names(
                "SELECT name FROM system.functions UNION ALL SELECT name FROM system.table_functions"
            ),
            self._parse,
        )
        self.version, self.timezone = self._names("SELECT arrayJoin([version(), timezone()])")
        self._anchor.query(f"CREATE DATABASE IF NOT EXISTS {identifier(DATABASE)}")
        formats = "SELECT lower(name), content_type FROM system.formats WHERE is_output"
        lines = self._anchor.query(formats, "TSVRaw").bytes().decode().splitlines()
        self._content_types: dict[str, str] = dict(line.split("\t") for line in lines)

    def close(self) -> None:
        self._anchor.close()
        self._lock.close()

    def is_in_place(self) -> bool:
        """Whether the folder is still the one that was opened; what is removed under the engine is lost."""
        try:
            here = (self._path / "lock").stat()
            return (self._path / "engine").is_dir() and os.path.samestat(here, os.fstat(self._lock.fileno()))
        except OSError:
            return False

    def run(
        self, sql: str, session: Session, default_format: str = "TabSeparated", out: int | None = None
    ) -> EngineAnswer:
        """Runs one statement that carries no data.

        Args:
            out: the writing end of a pipe, into which the answer goes; who reads it may take their time.

        Raises:
            EngineError: it is refused, failed, or was killed. Part of the answer may be in the pipe.
        """
        with closing(self._open()) as handle, engine_errors():
            canonical = self._check(handle, sql, session)
            with refusals():
                self._guard.check_format(default_format)
            if killing := KILL.fullmatch(canonical):
                return self._kill_asked(handle, killing, session, default_format, out)
            run = self._run_native if _wants_blocks(canonical, default_format, session) else self._run_piped
            with self._named(session, canonical):
                self._enter(handle, session)
                return run(handle, sql, canonical, session, default_format, out)

    def _run_piped(
        self,
        handle: Any,
        sql: str,
        canonical: str,
        session: Session,
        default_format: str,
        out: int | None,
    ) -> EngineAnswer:
        piped = None if out is None else self._into(canonical, default_format, out)
        done = handle.query(bytes_of(piped or sql), default_format, params=_values(session))
        return answer_of(done, out)

    def _run_native(
        self,
        handle: Any,
        sql: str,
        canonical: str,
        session: Session,
        default_format: str,
        out: int | None,
    ) -> EngineAnswer:
        """The engine's stream of results gives each block by itself, but of queries only."""
        if QUERY.match(canonical):
            results = handle.send_query(bytes_of(sql), "Native", params=_values(session))
            return native_answer(results, True, session.client_version, out)
        done = handle.query(bytes_of(sql), "Native", params=_values(session))
        return native_answer([done], False, session.client_version, out)

    def answer_format(self, sql: str, default_format: str) -> tuple[str, str] | None:
        """The format of a statement's answer and its media type; None where it answers nothing.

        Raises:
            EngineError: it is no statement.
        """
        with closing(self._open()) as handle, engine_errors(), refusals():
            name = format_of(self._canonical(handle, sql), default_format)
        return None if name is None else (name, self._content_types.get(name.lower(), _NO_TEXT))

    def insert(self, statement: str, data_format: str, session: Session) -> Insertion:
        """Opens ``INSERT INTO ...`` for data in ``data_format`` that comes in pieces.

        Raises:
            EngineError: it is refused, or there is no such table.
        """
        handle = self._open()
        end: Callable[[], object] = lambda: None  # noqa: E731
        try:
            with engine_errors():
                canonical = self._check(handle, f"{statement} FORMAT {data_format}", session)
                end = self._begin(session, canonical)
                self._enter(handle, session)
                return Insertion(handle, handle.send_insert(bytes_of(statement), data_format), end)
        except BaseException:
            handle.close()
            end()
            raise

    def kill(self, query_id: str) -> None:
        """Ends the statement of that id; it is over some milliseconds later, or not there. May be repeated: the
        engine knows a statement only a moment after it was begun.
        """
        with closing(self._open()) as handle, engine_errors():
            handle.query(f"KILL QUERY WHERE Settings['{TAG}'] = {literal(query_id)} ASYNC")

    def _kill_asked(
        self, handle: Any, killing: re.Match[str], session: Session, default_format: str, out: int | None
    ) -> EngineAnswer:
        """Kills a statement of the user's own, and answers as ClickHouse does: with a line for what is killed."""
        named, sync, answer_format = killing[1], killing[2] == "SYNC", killing[3] or default_format
        query_id = text_of(handle.query(bytes_of(f"SELECT {named}"), "TSVRaw").bytes()).removesuffix("\n")
        with self._opening:
            killed = self._running.get(query_id)
        is_own = killed is not None and killed.user == session.user
        while is_own and killing[2] != "TEST" and self._running.get(query_id) is killed:
            self.kill(query_id)
            if not sync:
                break
            time.sleep(_KILL_AGAIN_S)
        row = {
            "kill_status": "finished" if sync else "waiting",
            "query_id": query_id,
            "user": session.user,
            "query": killed.sql if killed is not None else "",
        }
        columns = ", ".join(f"{literal(value)} AS {name}" for name, value in row.items())
        query = bytes_of(f"SELECT {columns}{'' if is_own else ' WHERE 0'}")
        if _wants_blocks(killing.string, default_format, session):
            return native_answer([handle.query(query, "Native")], False, session.client_version, out)
        return answer_of(handle.query(query, answer_format), out)

    @contextmanager
    def _named(self, session: Session, canonical: str) -> Iterator[None]:
        end = self._begin(session, canonical)
        try:
            yield
        finally:
            end()

    def _begin(self, session: Session, canonical: str) -> Callable[[], object]:
        """Takes note of a statement; gives back what is to be called at its end."""
        if not session.query_id:
            return lambda: None
        with self._opening:
            if session.query_id in self._running:
                raise engine_error(
                    SAME_ID,
                    f"Query with id = {session.query_id} is already running",
                    "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
                )
            self._running[session.query_id] = _Running(session.user, canonical)
        return lambda: self._running.pop(session.query_id, None)

    def _into(self, canonical: str, default_format: str, out: int) -> str | None:
        """The query with its answer going into a pipe; None for a statement that is no query."""
        if not QUERY.match(canonical):
            return None
        with closing(self._open()) as handle:
            for before, after in ways_to_end(canonical, default_format):
                piped = f"{before} INTO OUTFILE '/proc/self/fd/{out}' APPEND{after}"
                with suppress(Exception):
                    # The parser decides where it belongs.
                    if self._formatted(handle, piped) == piped:
                        return piped
        return None

    def _check(self, handle: Any, sql: str, session: Session) -> str:
        """The statement in canonical form: exactly one, and one that its user may send, with these settings."""
        canonical = self._canonical(handle, sql)
        unknown = [name for name in session.settings if name not in self._known_settings]
        if unknown:
            raise engine_error(UNKNOWN_SETTING, f"Unknown setting {unknown[0]!r}", "UNKNOWN_SETTING")
        answer_format = format_of(canonical, "Null")
        if answer_format and answer_format.lower() not in self._content_types:
            raise engine_error(UNKNOWN_FORMAT, f"Unknown format {answer_format} of answers", "UNKNOWN_FORMAT")
        with refusals():
            if session.user not in ROLES:
                raise StatementRefused(f"the user {session.user} has nothing to do with ClickHouse")
            self._guard.check(canonical, session.user, session.parameters)
            self._guard.check_settings(session.settings)
            if session.is_named:
                check_use(canonical, session.database or DATABASE)
        return canonical

    def _canonical(self, handle: Any, sql: str) -> str:
        """What the engine's own parser makes of the text; an error where that is not exactly one statement."""
        with self._opening:
            if sql in self._forms:
                self._forms.move_to_end(sql)
                return self._forms[sql]
        canonical = self._formatted(handle, sql)
        if len(sql) <= _LONGEST_KEPT:
            with self._opening:
                self._forms[sql] = canonical
                if len(self._forms) > _KEPT_FORMS:
                    self._forms.popitem(last=False)
        return canonical

    def _formatted(self, handle: Any, sql: str) -> str:
        parsed = handle.query(
            "SELECT formatQuerySingleLine({q:String})", "TSVRaw", params={"q": as_parameter(sql)}
        )
        return text_of(parsed.bytes()).rstrip("\n")

    def _parse(self, expression: str) -> str:
        """The canonical form of the statement that an expression of literals gives."""
        with closing(self._open()) as handle, engine_errors():
            parsed = handle.query(bytes_of(f"SELECT formatQuerySingleLine({expression})"), "TSVRaw")
            return text_of(parsed.bytes()).rstrip("\n")

    def _enter(self, handle: Any, session: Session) -> None:
        handle.query(f"SET ROLE {ROLES[session.user]}")
        handle.query(bytes_of(f"USE {identifier(session.database or DATABASE)}"))
        limits = limits_of(session.user)
        settings = limits.defaults() | {TAG: session.query_id} | limits.within(session.settings)
        readonly = settings.pop("readonly", "0")
        if session.readonly and readonly != "1":
            readonly = "2"  # a GET writes nothing, whatever it says
        assignments = [f"{name} = {literal(value)}" for name, value in settings.items()]
        handle.query(bytes_of("SET " + ", ".join(assignments)))
        for table in session.tables:
            self._take_in(handle, table)
        if readonly != "0":
            # Once it holds nothing else can be set.
            handle.query(bytes_of(f"SET readonly = {literal(readonly)}"))

    def _take_in(self, handle: Any, table: ExternalTable) -> None:
        with refusals():
            columns = self._guard.columns(table.structure)
            self._guard.check_format(table.data_format)
        name = identifier(table.name)
        handle.query(bytes_of(f"CREATE TEMPORARY TABLE {name} ({columns}) ENGINE = Memory"))
        stream = handle.send_insert(f"INSERT INTO {name}", table.data_format)
        stream.append(table.data)
        stream.finish()

    def _open(self) -> Any:
        with self._opening:
            return self._connect(self._address)

    def _names(self, sql: str) -> list[str]:
        found: bytes = self._anchor.query(sql, "TSVRaw").bytes()
        return found.decode().split()


def _wants_blocks(canonical: str, default_format: str, session: Session) -> bool:
    return bool(session.client_version) and format_of(canonical, default_format) == "Native"


def _values(session: Session) -> dict[str, str]:
    return {name: readable(value) for name, value in session.parameters.items()}


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
