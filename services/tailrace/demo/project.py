"""The demo's project folder, in which it types the commands that a person would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tailrace.connection import Connection, connect
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.demo.display import Display
from tailrace.demo.pacing import STILL_S
from tailrace.errors import TailraceError
from tailrace.package_data import data_dir
from tailrace.runtime.patience import Patience


class DemoProject:
    """A folder that is made anew; a home left there by an earlier run is taken down and purged."""

    def __init__(self, folder: Path, display: Display) -> None:
        self.folder, self._display = folder, display

    def make(self, model: str) -> ModelContract:
        """The folder with the example contract of this model, and with how its rows are read where it says so."""
        if (self.folder / ".tailrace").exists():
            self.tailrace("down", "--purge", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        for kind in ("models", "data"):
            folder = self.folder / "contracts" / kind
            folder.mkdir(parents=True)
            if (file := data_dir("contracts", kind) / f"{model}.yaml").exists():
                shutil.copy(file, folder)
        return load_contract(self.folder / "contracts" / "models" / f"{model}.yaml")

    @property
    def connection(self) -> Connection:
        return connect(home=self.folder / ".tailrace")

    def status(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.tailrace("status", "--json", quiet=True, check=False))
        return report

    def pid(self, service: str) -> int:
        return next(int(s["pid"]) for s in self.status()["services"] if s["name"] == service)

    def wait_for_champion(self, model: str, version: int) -> None:
        """Raises TailraceError when this version does not come to answer, and nothing makes progress any more."""
        patience = Patience(STILL_S)
        while True:
            status = self.status()
            if any(m["model"] == model and m["champion"] == version for m in status.get("models") or []):
                return
            services = [(s["name"], s["waiting"], s["lag"], s["restarts"]) for s in status["services"]]
            if not patience.look(*services):
                raise TailraceError(
                    f"version {version} of {model} is not champion, and nothing has changed for {STILL_S:.0f} s: see "
                    "`tailrace logs rollout`"
                )
            self._display.waits(f"version {version} to become champion")
            time.sleep(0.2)

    def verify(self) -> dict[str, Any]:
        """What ``tailrace verify`` found, without its account by topic; its problems are shown."""
        report = json.loads(self.tailrace("verify", "--json", check=False))
        for problem in report.pop("problems", None) or []:
            self._display.say(f"verify: {problem}")
        return {name: value for name, value in report.items() if not isinstance(value, dict)}

    def tailrace(self, *words: str, check: bool = True, quiet: bool = False) -> str:
        """Runs a command in the folder; returns its stdout.

        Raises:
            TailraceError: it failed, and ``check`` is on.
        """
        if not quiet:
            self._display.command(*words)
        env = {k: v for k, v in os.environ.items() if k != "TAILRACE_HOME"}
        done = subprocess.run(
            [sys.executable, "-m", "tailrace.cli", *words],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise TailraceError(f"`tailrace {' '.join(words)}` failed:\n{done.stderr.strip()}")
        return done.stdout
