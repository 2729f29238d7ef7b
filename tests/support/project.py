"""A project folder with a home of its own, driven through the command line alone, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from tests.support.waiting import PATIENCE_S, until

from tailrace.local.home import Home

# What a user's shell may have set must not leak into a test's project.
_FOREIGN = ("KAFKA_", "SCHEMA_REGISTRY_", "CLICKHOUSE_", "TAILRACE_")


class Project:
    """A folder in which ``tailrace`` commands run; ``home`` is ``./.tailrace`` in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = path / ".tailrace"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        for kept in ("TAILRACE_CACHE", "KAFKA_HOME"):
            if kept in os.environ:
                self.env[kept] = os.environ[kept]

    def run(
        self, *args: str, timeout: float = PATIENCE_S, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs ``tailrace ARGS``; a failing command fails the test with what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "tailrace.cli", *args],
            cwd=self.path,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(args)} exited {done.returncode}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
            )
        return done

    @staticmethod
    def program(name: str) -> list[str]:
        """The command that runs one of the services."""
        return [sys.executable, "-m", "tailrace.cli", "run", name]

    def json(self, *args: str, timeout: float = PATIENCE_S, check: bool = True) -> Any:
        """Runs ``tailrace ARGS --json`` and parses what it put on stdout."""
        done = self.run(*args, "--json", timeout=timeout, check=check)
        assert done.stdout, f"{' '.join(args)} printed nothing:\n{done.stderr}"
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        return dict(self.json("status", check=False))

    def service(self, name: str) -> dict[str, Any]:
        return next(s for s in self.status()["services"] if s["name"] == name)

    def wait_for_champion(self, model: str, version: int) -> None:
        """Until this version of the model answers."""
        self.wait(
            lambda: any(m["model"] == model and m["champion"] == version for m in self.status()["models"]),
            f"{model} {version} to be champion",
        )

    def pid(self, name: str) -> int:
        """Of what runs in this home, as it was written down last."""
        home = Home(self.home)
        processes = home.read(home.state)["processes"]
        return next(int(process["pid"]) for process in processes if process["name"] == name)

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Until the condition holds; while a killed broker or registry does not answer, it does not."""
        until(condition, lambda: f"{what}\n{self.logs()}", ignoring=(KafkaException, OSError))

    def logs(self) -> str:
        """The end of every log of the home, for a failing test's message."""
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(_telling(log)[-30:])
            for log in sorted((self.home / "run").glob("*.log"))
        )


@contextmanager
def running_project(path: Path, **env: str) -> Iterator[Project]:
    """A project with everything up, under these variables; taken down and purged whatever happened."""
    path.mkdir(parents=True, exist_ok=True)
    project = Project(path)
    project.env |= env
    try:
        project.run("up", "--detach")
        yield project
    finally:
        project.run("down", "--purge", check=False)


def _telling(log: Path) -> list[str]:
    """A log's lines without those that only repeat that a broker is away."""
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if "Connection refused" not in line and not line.startswith("%")]
