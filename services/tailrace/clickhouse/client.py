"""ClickHouse over HTTP: the few calls that Tailrace makes, with errors that a caller can act on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from tailrace.access.home_servers import Auth, login
from tailrace.addresses import credentials_in, without_credentials
from tailrace.connection import Connection
from tailrace.errors import TailraceError, Unavailable, UsageError

DATABASE = "tailrace"

NO_SUCH_COLUMN = 16
UNKNOWN_TABLE = 60
UNKNOWN_DATABASE = 81
_AUTHENTICATION_FAILED = 516
_PIECE = 256 << 10

DAMAGED = frozenset({32, 33, 40, 107, 226, 228, 246, 271, 740})
"""Codes of files that are not as they were written: sums, ends, codecs, and files that are gone."""

NO_COLUMN = frozenset({36, 44, 50, 62})
"""Codes of a column that cannot be: its name or its type is none to ClickHouse."""

NOT_OF_A_ROW = frozenset({164, 192, 193, 194, 195, 201, 291, 497})
"""Codes of what another row would be refused for as well: rights, users, quotas, a server that only reads."""

# What passes by itself: time-outs, full queues and disks, files that cannot be opened, read or written for the moment,
# replicas and keepers that are away.
_PASSING = frozenset(
    {
        *(74, 75, 76, 159, 198, 202, 203, 209, 210, 225, 241, 242, 243, 252, 279, 285, 286, 319, 394, 425),
        *(439, 473, 999),
    }
)


class QueryFailed(TailraceError):
    """ClickHouse refused a statement, and would refuse it again. ``code`` and ``name`` are ClickHouse's."""

    def __init__(self, message: str, code: int, name: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.name = name


class QueryResult(NamedTuple):
    """A result: column names, and the rows as tuples in their order."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


class RowStore(Protocol):
    """What keeps rows; `ClickHouse` is the one, tests have another."""

    def columns(self, table: str) -> dict[str, str]: ...
    def command(self, sql: str) -> None: ...
    def insert(
        self, table: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], token: str
    ) -> None: ...
    def last_offset(self, table: str, topic: str, partition: int) -> int: ...
    def offsets(self, table: str, topic: str, partition: int, start: int, end: int) -> set[int]: ...
    def is_replicated(self, table: str) -> bool: ...


class ClickHouse:
    """One ClickHouse server (or load balancer) and one database on it. May be shared between threads.

    Every call raises `Unavailable` while the server cannot be reached or says that the trouble is passing, and
    `QueryFailed` where a statement is wrong.

    Args:
        url: ``http(s)://[user:password@]host[:port][/database]``; the database is ``tailrace`` by default.
        timeout: seconds for one call.
        auth: ``user:password``, or what gives it, which is asked again where the server refuses it; None takes those
            in the URL.
    """

    def __init__(self, url: str, timeout: float = 60.0, auth: Auth = None) -> None:
        parts = _parts(without_credentials(url))
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"{without_credentials(url)!r} is no address of ClickHouse's HTTP interface: "
                "set CLICKHOUSE_URL to one such as http://127.0.0.1:8123"
            )
        self.database = unquote(parts.path.strip("/")) or DATABASE
        self.address = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._options: dict[str, Any] = {
            "host": parts.hostname,
            "interface": parts.scheme,
            "port": parts.port or (8443 if parts.scheme == "https" else 8123),
            "send_receive_timeout": timeout,
            "connect_timeout": min(timeout, 5.0),
            # Settings would leak from one statement to the next, and threads would wait for one another.
            "autogenerate_session_id": False,
            "tz_mode": "aware",
        }
        self._auth: Auth = auth or credentials_in(url)
        self._login: str | None = None
        self._made: Any = None
        self._making = threading.Lock()

    @classmethod
    def connect(cls, connection: Connection, timeout: float = 60.0) -> ClickHouse:
        """The one that the environment or the running home names.

        Raises:
            TailraceError: none is named.
        """
        if connection.clickhouse is None:
            raise TailraceError(
                "CLICKHOUSE_URL is not set and nothing runs here: start everything with `tailrace up "
                "--detach`, or set CLICKHOUSE_URL to use what you have"
            )
        return cls(connection.clickhouse, timeout, connection.clickhouse_auth)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> QueryResult:
        """Runs a query that only reads; ``{name:Type}`` in it takes the parameter's value. Times know their zone."""
        values = dict(parameters or {})
        result = self._do(lambda client: client.query(sql, parameters=values, settings={"readonly": 2}))
        return QueryResult(tuple(result.column_names), result.result_rows)

    def select(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """`query`, each row as a mapping."""
        columns, rows = self.query(sql, parameters)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def text(self, sql: str, answer_format: str) -> Iterator[bytes]:
        """`query`, as one of ClickHouse's formats has it, in pieces as they come."""
        with self._errors():
            # The client adds a format behind the statement, where a semicolon may not stand.
            statement = sql.rstrip().rstrip(";")
            stream = self._do(
                lambda client: client.raw_stream(statement, fmt=answer_format, settings={"readonly": 2})
            )
            try:
                while piece := stream.read(_PIECE):
                    yield piece
            finally:
                stream.close()

    def command(self, sql: str) -> None:
        """Runs a statement that gives nothing back."""
        self._do(lambda client: client.command(sql))

    def create_database(self) -> None:
        statement = f"CREATE DATABASE IF NOT EXISTS {quoted(self.database)}"
        self._do(lambda client: client.command(statement, use_database=False))

    def has_database(self) -> bool:
        sql, name = "SELECT count() FROM system.databases WHERE name = {name:String}", {"name": self.database}
        return bool(self._do(lambda client: client.command(sql, parameters=name, use_database=False)))

    def columns(self, table: str) -> dict[str, str]:
        """The table's columns and their types, in order; empty where there is no such table."""
        columns = self.query(
            "SELECT name, type FROM system.columns"
            " WHERE database = {database:String} AND table = {table:String} ORDER BY position",
            {"database": self.database, "table": table},
        )
        return dict(columns.rows)

    def insert(
        self, table: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], token: str
    ) -> None:
        """Inserts columns of equal length as one block; columns left out take their defaults.

        Of inserts into one table under one token the first counts, however often the block is sent. Times are
        whole milliseconds where the type is ``DateTime64(3)``.

        Args:
            types: the type of each column, as `columns` gives it.
        """
        names = list(columns)
        settings = {"insert_deduplication_token": token, "insert_deduplicate": 1, "async_insert": 0}
        self._do(
            lambda client: client.insert(
                quoted(table),
                [columns[name] for name in names],
                column_names=names,
                column_type_names=[types[name] for name in names],
                column_oriented=True,
                settings=settings,
            )
        )

    def last_offset(self, table: str, topic: str, partition: int) -> int:
        """The largest offset of a partition's records that have a row in the table; -1 where none has."""
        newest = self.query(
            f"SELECT max(toInt64(_offset)), count() FROM {quoted(table)}"  # noqa: S608
            " WHERE _topic = {topic:String} AND _partition = {partition:UInt32}",
            {"topic": topic, "partition": partition},
        )
        ((last, rows),) = newest.rows
        return int(last) if rows else -1

    def offsets(self, table: str, topic: str, partition: int, start: int, end: int) -> set[int]:
        """The offsets from ``start`` up to ``end`` whose records have a row in the table."""
        offsets = self.query(
            f"SELECT DISTINCT _offset FROM {quoted(table)} WHERE _topic = {{topic:String}}"  # noqa: S608
            " AND _partition = {partition:UInt32} AND _offset >= {start:UInt64} AND _offset < {end:UInt64}",
            {"topic": topic, "partition": partition, "start": start, "end": end},
        )
        return {int(offset) for (offset,) in offsets.rows}

    def damaged_parts(self, table: str) -> list[str]:
        """The names of the table's parts of which a file does not have its sum; all files are read."""
        statement = f"CHECK TABLE {quoted(table)} SETTINGS check_query_single_value_result = 0"
        answer = self._do(lambda client: client.command(statement))
        # The client takes CHECK for a command: it splits what comes at tabs alone.
        text = "\t".join(answer) if isinstance(answer, list) else str(answer)
        lines = [line.split("\t") for line in text.split("\n")]
        return [line[0] for line in lines if len(line) > 1 and line[1] == "0"]

    def is_replicated(self, table: str) -> bool:
        """Whether the table's blocks and their tokens are kept together, by a Keeper."""
        engines = self.query(
            "SELECT engine FROM system.tables WHERE database = {database:String} AND name = {table:String}",
            {"table": table, "database": self.database},
        )
        return any(engine.startswith(("Replicated", "Shared")) for (engine,) in engines.rows)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None

    def _do(self, call: Callable[[Any], Any]) -> Any:
        """Makes a call, and once more where what is sent to be let in has been renewed meanwhile."""
        from clickhouse_connect.driver.exceptions import Error

        with self._errors():
            sent = self._login or login(self._auth)
            try:
                return call(self._client)
            except Error as error:
                if error.code != _AUTHENTICATION_FAILED or login(self._auth) == sent:
                    raise
            self._made = None  # and not closed: another thread may be using it
            return call(self._client)

    @property
    def _client(self) -> Any:
        import clickhouse_connect

        with self._making:
            if self._made is None:
                # It logs what it raises; whoever catches it here decides what is said.
                logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
                self._login = login(self._auth)
                user, _, password = (self._login or "").partition(":")
                client = clickhouse_connect.get_client(
                    **self._options, username=user or None, password=password
                )
                # The database may be yet to be made, so the first questions are asked without it.
                client.database = self.database
                self._made = client
            return self._made

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from clickhouse_connect.driver.exceptions import DataError, Error, ProgrammingError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (ProgrammingError, DataError):
            raise
        except (HTTPError, OSError) as error:
            raise Unavailable(f"ClickHouse at {self.address} cannot be reached: {error}") from error
        except Error as error:
            if error.code is None:
                raise Unavailable(f"ClickHouse at {self.address} does not answer: {_short(error)}") from error
            if error.code in _PASSING:
                raise Unavailable(f"ClickHouse at {self.address} is unwell: {_short(error)}") from error
            if error.code == _AUTHENTICATION_FAILED:
                raise TailraceError(
                    f"ClickHouse at {self.address} refuses the user: check those in CLICKHOUSE_URL; for a home's own "
                    "ClickHouse `tailrace env` prints them"
                ) from error
            raise QueryFailed(_short(error), error.code, error.name) from error


def quoted(name: str) -> str:
    """The name as an identifier in ClickHouse's SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _parts(url: str) -> SplitResult | None:
    """None where they cannot be told apart; what the library says of it shows parts of a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _short(error: Exception) -> str:
    text = str(error).partition("server response: ")[2] or str(error)
    return text.partition(" (version ")[0].partition(" (for url ")[0][:1000]
