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
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from tailrace.access.credentials import OPS
from tailrace.errors import TailraceError
from tailrace.local.clickhouse_damage import set_aside
from tailrace.local.clickhouse_guard import Guard, Parse
from tailrace.local.clickhouse_kinds import KILL
from tailrace.local.clickhouse_limits import limits_of
from tailrace.local.clickhouse_refused import EngineError, StatementRefused
from tailrace.local.clickhouse_tokens import Tokens, quoted
from tailrace.local.clickhouse_users import ROLES, TAG, write_configuration

_CODE = re.compile(r"Code: (\d+)\.")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f"}

_UNKNOWN_SETTING = (115, "UNKNOWN_SETTING")
_SAME_ID = (216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING")

_KILL_AGAIN_S = 0.1

# Canonical forms that are kept: services send the same few statements again and again.
_KEPT_FORMS, _LONGEST_KEPT = 1024, 16 * 1024


@dataclass(frozen=True)
class Session:
    """What surrounds one statement: database, settings, and the values of its ``{name:Type}`` parameters.

    Attributes:
        user: the HTTP user who sends it: it runs in that user's role, and within that user's limits.
        query_id: by which it can be killed; empty where it cannot.
    """

    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    readonly: bool = False
    user: str = OPS
    query_id: str = ""


@dataclass(frozen=True)
class EngineAnswer:
    """``body`` is the answer, where it was not written into a pipe."""

    body: bytes
    rows: int = 0
    bytes_read: int = 0
    rows_written: int = 0
    bytes_written: int = 0
    seconds: float = 0.0


class Insertion:
    """Data on its way into a table; nothing of it is there before ``finish`` returns."""

    def __init__(self, stream: Any, resources: ExitStack) -> None:
        self._stream = stream
        self._resources = resources

    def append(self, data: bytes) -> None:
        with _engine_errors():
            self._stream.append(data)

    def finish(self) -> EngineAnswer:
        with _engine_errors():
            done = self._stream.finish()
        return EngineAnswer(
            b"", rows_written=done.rows_written, bytes_written=done.bytes_written, seconds=done.elapsed
        )

    def close(self) -> None:
        """Gives the insert up where it is not finished."""
        with self._resources, suppress(RuntimeError):
            self._stream.cancel()


class _Running(NamedTuple):
    """A statement that runs, in canonical form, and whose it is."""

    user: str
    sql: str


class Judge(Protocol):
    """What decides on statements: `Guard`. Each method raises `StatementRefused`."""

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
        with closing(self._open()) as handle, _engine_errors():
            canonical = self._check(handle, sql, session)
            self._guard.check_format(default_format)
            if killing := KILL.fullmatch(canonical):
                return self._kill_asked(handle, killing, session, default_format, out)
            piped = None if out is None else self._into(handle, canonical, default_format, out)
            with self._named(session, canonical):
                self._enter(handle, session)
                done = handle.query(piped or sql, default_format, params=dict(session.parameters))
            return EngineAnswer(
                body=_delivered(done, out),
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
        with ExitStack() as resources, _engine_errors():
            handle = resources.enter_context(closing(self._open()))
            canonical = self._check(handle, f"{statement} FORMAT {data_format}", session)
            resources.enter_context(self._named(session, canonical))
            self._enter(handle, session)
            stream = handle.send_insert(statement, data_format)
            return Insertion(stream, resources.pop_all())

    def kill(self, query_id: str) -> None:
        """Ends the statement of that id; it is over some milliseconds later, or not there. May be repeated: the
        engine knows a statement only a moment after it was begun.
        """
        with closing(self._open()) as handle, _engine_errors():
            handle.query(f"KILL QUERY WHERE Settings['{TAG}'] = {quoted(query_id)} ASYNC")

    def _kill_asked(
        self, handle: Any, killing: re.Match[str], session: Session, default_format: str, out: int | None
    ) -> EngineAnswer:
        """Kills a statement of the user's own, and answers as ClickHouse does: with a line for what is killed."""
        literal, sync, answer_format = killing[1], killing[2] == "SYNC", killing[3] or default_format
        query_id = handle.query(f"SELECT {literal}", "TSVRaw").bytes().decode().removesuffix("\n")
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
        columns = ", ".join(f"{quoted(value)} AS {name}" for name, value in row.items())
        done = handle.query(f"SELECT {columns}{'' if is_own else ' WHERE 0'}", answer_format)
        return EngineAnswer(_delivered(done, out), rows=int(is_own))

    @contextmanager
    def _named(self, session: Session, canonical: str) -> Iterator[None]:
        """Knows a statement by its id while it runs."""
        if not session.query_id:
            yield
            return
        with self._opening:
            if session.query_id in self._running:
                raise StatementRefused(f"Query with id = {session.query_id} is already running", _SAME_ID)
            self._running[session.query_id] = _Running(session.user, canonical)
        try:
            yield
        finally:
            self._running.pop(session.query_id, None)

    def _into(self, handle: Any, canonical: str, default_format: str, out: int) -> str | None:
        """The query with its answer going into a pipe; None for a statement that is no query."""
        if not _QUERY.match(canonical):
            return None
        for before, after in _ways_to_end(canonical, default_format):
            piped = f"{before} INTO OUTFILE '/proc/self/fd/{out}' APPEND{after}"
            with suppress(Exception):
                # The parser decides where it belongs.
                if self._formatted(handle, piped) == piped:
                    return piped
        return None

    def _check(self, handle: Any, sql: str, session: Session) -> str:
        """The statement in canonical form: exactly one, and one that its user may send, with these settings."""
        canonical = self._canonical(handle, sql)
        if unknown := [name for name in session.settings if name not in self._known_settings]:
            raise StatementRefused(f"Unknown setting {unknown[0]!r}", _UNKNOWN_SETTING)
        if session.user not in ROLES:
            raise StatementRefused(f"the user {session.user} has nothing to do with ClickHouse")
        self._guard.check(canonical, session.user, session.parameters)
        self._guard.check_settings(session.settings)
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
        escaped = "".join(_ESCAPES.get(c, c) for c in sql)
        return _one_line(handle, "{q:String}", {"q": escaped})

    def _parse(self, expression: str) -> str:
        """The canonical form of the statement that an expression of literals gives."""
        with closing(self._open()) as handle, _engine_errors():
            return _one_line(handle, expression, {})

    def _enter(self, handle: Any, session: Session) -> None:
        handle.query(f"SET ROLE {ROLES[session.user]}")
        if session.database:
            handle.query(f"USE {quoted(session.database, '`')}")
        limits = limits_of(session.user)
        settings = limits.defaults() | {TAG: session.query_id} | limits.within(session.settings)
        assignments = [f"{name} = {quoted(value)}" for name, value in settings.items()]
        if session.readonly and not any(a.startswith("readonly ") for a in assignments):
            assignments.append("readonly = 2")
        # Once `readonly` holds nothing else can be set.
        assignments.sort(key=lambda a: a.startswith("readonly "))
        handle.query("SET " + ", ".join(assignments))

    def _open(self) -> Any:
        with self._opening:
            return self._connect(self._address)

    def _names(self, sql: str) -> list[str]:
        names: bytes = self._anchor.query(sql, "TSVRaw").bytes()
        return names.decode().split()


_QUERY = re.compile(r"\(*(?:SELECT|WITH)\b")


def _one_line(handle: Any, expression: str, parameters: dict[str, str]) -> str:
    parsed = handle.query(f"SELECT formatQuerySingleLine({expression})", "TSVRaw", params=parameters)
    text: str = parsed.bytes().decode(errors="replace")
    return text.rstrip("\n")


def _ways_to_end(canonical: str, default_format: str) -> Iterator[tuple[str, str]]:
    """Where the part of a query may begin that says what becomes of its answer: the text before, and from there on."""
    tokens = Tokens(canonical)
    for place in reversed(range(len(tokens))):
        if tokens[place].text == "FORMAT" and tokens[place].kind == "word" and tokens[place + 1].is_name:
            yield canonical[: tokens[place].start - 1], " " + canonical[tokens[place].start :]
    yield canonical, f" FORMAT {default_format}"


def _delivered(done: Any, out: int | None) -> bytes:
    """The answer; nothing of it where it goes into a pipe."""
    body: bytes = done.bytes() or b""
    if out is None:
        return body
    rest = memoryview(body)
    with suppress(BrokenPipeError):  # nobody wants it any more
        while rest:
            rest = rest[os.write(out, rest) :]
    return b""


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
        code = _CODE.match(message)
        raise EngineError(int(code[1]) if code else 1000, message) from error


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
