"""What every command prints with: data to stdout, everything else to stderr."""

from __future__ import annotations

import datetime
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Self

import typer

from tailrace.access.credentials import OWNER
from tailrace.connection import Connection, connect
from tailrace.errors import UsageError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def connection(user: str = OWNER) -> Connection:
    """The addresses from the environment, else from the running home.

    Args:
        user: as whom the command comes.

    Raises:
        TailraceError: nothing runs and nothing is set; says what to do.
    """
    return connect(user=user)


def parsed(option: str, text: str | None, parse: Callable[[str], int]) -> int | None:
    """What an option says; None where it is not given.

    Raises:
        UsageError: ``parse`` raised ValueError.
    """
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def say(text: str = "") -> None:
    """Tells a person something: to stderr, so that stdout stays data."""
    print(text, file=sys.stderr, flush=True)


def emit(data: Any, as_json: bool = False) -> None:
    """Prints a command's result to stdout.

    A list of mappings is a table (rich on a terminal, aligned columns elsewhere), a mapping a line per entry,
    anything else printed as it is. With ``as_json`` it is one JSON document on one line.
    """
    if as_json:
        print(to_json(data), flush=True)
    elif isinstance(data, Mapping):
        _print_mapping(data)
    elif isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        if data and all(isinstance(row, Mapping) for row in data):
            _print_table(data)
        else:
            for row in data:
                print(_cell(row))
    else:
        print(_cell(data))
    sys.stdout.flush()


def to_json(data: Any) -> str:
    """Strict JSON: bytes as text (hex where they are none), times in ISO 8601, NaN and infinities as text."""
    return json.dumps(_plain(data), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return str(value)


def _cell(value: Any) -> str:
    plain = _plain(value)
    if plain is None:
        return "-"
    if isinstance(plain, str):
        return plain
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return json.dumps(plain, ensure_ascii=False)


def _print_mapping(data: Mapping[str, Any]) -> None:
    """One line per entry; a list of mappings inside becomes a table under its name."""
    width = max((len(str(k)) for k in data), default=0)
    for name, value in data.items():
        if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            print(f"\n{name}")
            _print_table(value)
        else:
            print(f"{name:<{width}}  {_cell(value)}")


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for line in cells:
            table.add_row(*(Text(cell, overflow="fold") for cell in line))
        sys.stdout.flush()
        Console().print(table)
        return
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    for line in [columns, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


class progress:  # noqa: N801 - used like a function: `with progress(...) as bar`
    """Progress on stderr: a bar with rate and time left on a terminal, elsewhere a line every few seconds.

    Args:
        what: what goes on, e.g. ``replay``.
        total: how many units in all, or None where unknown.
        unit: plural of what is counted.
        every_s: seconds between two plain lines.
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "rows", every_s: float = 2.0) -> None:
        self._what, self._total, self._unit, self._every = what, total, unit, every_s
        self._done = 0
        self._started = self._spoke = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        self._started = self._spoke = time.monotonic()
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[note]}"),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=self._count())
            self._bar.stop()
        elif kind is None:
            say(f"{self._what}: {self._count()}")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def update(self, done: int) -> None:
        """Says how many units are done in all; cheap enough to be called for every batch."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=self._count())
        elif time.monotonic() - self._spoke >= self._every:
            self._spoke = time.monotonic()
            say(f"{self._what}: {self._count()}{self._left()}")

    def _count(self) -> str:
        rate = self._done / max(self.seconds, 1e-9)
        of = "" if self._total is None else f" of {self._total:,}"
        return f"{self._done:,}{of} {self._unit}, {rate:,.0f}/s"

    def _left(self) -> str:
        if not self._total or not self._done:
            return ""
        return f", {self.seconds * (self._total - self._done) / self._done:,.0f} s left"
