"""The local ClickHouse's engine in a child process, with some of its walls taken away.

Three walls: ``lists`` (what the guard lets through), ``roles`` (the engine's own configuration), ``kernel`` (Landlock).
``python -m tests.support.clickhouse_walls FOLDER WALL...`` opens the engine behind the walls named and answers one JSON
statement a line; with ``--http PORT`` it serves HTTP, and the header X-Test-User says who asks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

WALLS = ("lists", "roles", "kernel")


class Answer(NamedTuple):
    """``code`` is ClickHouse's, 0 where the statement ran."""

    code: int
    text: str


class WalledEngine:
    """An engine in a process of its own. ``home`` has its data; its keys are what attacks are after."""

    def __init__(self, home: Path, walls: Iterable[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.clickhouse_walls", str(home), *walls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._asking = threading.Lock()

    def ask(
        self,
        sql: str,
        user: str = "ops",
        settings: Mapping[str, str] | None = None,
        database: str | None = None,
    ) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._asking:
            request = {"sql": sql, "user": user, "settings": settings or {}, "database": database}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        assert line, f"the engine has ended with {self._process.wait(10)}"
        return Answer(*json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def amend(home: Path, *statements: str) -> None:
    """Runs what no door lets in, on the data of a home whose ClickHouse does not run."""
    engine = WalledEngine(home, ())
    try:
        for sql in statements:
            answer = engine.ask(sql, "services")
            assert answer.code == 0, answer.text
    finally:
        engine.close()


class _Everything:
    """A guard that refuses nothing."""

    def __init__(self, functions: Iterable[str], parse: object) -> None: ...
    def check(self, canonical: str, user: str, parameters: Mapping[str, str]) -> None: ...
    def check_settings(self, settings: Mapping[str, str]) -> None: ...
    def check_format(self, name: str) -> None: ...

    def columns(self, structure: str) -> str:
        return structure


def _open(home: Path, walls: set[str]) -> Any:
    from tailrace.confinement.landlock import confine
    from tailrace.confinement.profiles import clickhouse_limits, scratch

    folder = home / "data" / "clickhouse"
    scratch(folder / "tmp")
    if "kernel" in walls:
        assert confine(clickhouse_limits(home)), "no Landlock here"
    from tailrace.local import clickhouse_engine, clickhouse_users

    if "roles" not in walls:
        clickhouse_users.GRANTS = dict.fromkeys(clickhouse_users.GRANTS, _ALL)
        clickhouse_users._profiles = lambda: "<profiles><default></default></profiles>"
    if "lists" in walls:
        return clickhouse_engine.Engine(folder)
    return clickhouse_engine.Engine(folder, _Everything)


# What the engine's user has where nobody configures one.
_ALL = (
    (
        "GRANT CHECK, SHOW, SELECT, INSERT, ALTER, CREATE, DROP, TRUNCATE, OPTIMIZE, BACKUP, KILL QUERY, SYSTEM, "
        "dictGet, INTROSPECTION, CLUSTER, SOURCES ON *.*"
    ),
    "GRANT TABLE ENGINE ON *",
)


def _answer(engine: Any, request: dict[str, Any]) -> Answer:
    from tailrace.local.clickhouse_engine import Session
    from tailrace.local.clickhouse_errors import EngineError

    session = Session(database=request["database"], settings=request["settings"], user=request["user"])
    try:
        sql = request["sql"].rstrip().rstrip(";")
        return Answer(0, engine.run(sql, session).body.decode(errors="replace"))
    except EngineError as error:
        return Answer(error.code, str(error))


def _serve(engine: Any, port: int) -> None:
    import uvicorn

    from tailrace.local.clickhouse_bridge import Bridge

    app = Bridge(engine).app

    async def as_user(scope: Any, receive: Any, send: Any) -> None:
        user = dict(scope["headers"]).get(b"x-test-user")
        await app(scope | {"user": user.decode()} if user else scope, receive, send)

    uvicorn.run(as_user, host="127.0.0.1", port=port, log_level="warning", lifespan="off")


def main() -> None:
    home, *walls = sys.argv[1:]
    if "--http" in walls:
        _serve(_open(Path(home), {"lists", "roles"}), int(walls[-1]))
        return
    engine = _open(Path(home), set(walls))
    for line in sys.stdin:
        print(json.dumps(_answer(engine, json.loads(line))), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
