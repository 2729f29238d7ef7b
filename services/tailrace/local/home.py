"""The two folders of a local Tailrace: the project, which is the user's, and the home, which is ours.

A project holds ``contracts/models/*.yaml``. A home (``./.tailrace`` unless told otherwise) holds what runs::

    data/kafka  data/clickhouse        what must outlive a restart
    run/addresses.json                 where everything is, while it runs
    run/state.json  run/ports.json     what runs, and on which ports
    run/NAME.log  run/lock
    home.json                          its format and its id
    keys/  credentials/                trusted and signing keys; passwords and tokens
    access/                            digests of the tokens, and which servers are this home's
    cache/NAME  state/NAME             a service's own; in cache what can be had again
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailrace.access.home_identity import home_id
from tailrace.access.private_files import make_private, write_private
from tailrace.connection import ADDRESSES
from tailrace.errors import TailraceError

CONTRACTS = Path("contracts", "models")


def contract_files(project: Path) -> list[Path]:
    """The model contracts of a project, in the order of their names."""
    return sorted(file for file in (project / CONTRACTS).glob("*.y*ml") if file.suffix in (".yaml", ".yml"))


class Home:
    """A home folder. Nothing is created before `prepare`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.run = self.root / "run"
        self.kafka_data = self.root / "data" / "kafka"
        self.addresses = self.root / ADDRESSES
        self.state = self.run / "state.json"
        self.ports = self.run / "ports.json"

    def __str__(self) -> str:
        """As people would type it: relative where it is below the current folder."""
        try:
            return str(self.root.relative_to(Path.cwd()))
        except ValueError:
            return str(self.root)

    def log(self, name: str) -> Path:
        return self.run / f"{name}.log"

    def prepare(self) -> None:
        """Makes the folders.

        Raises:
            TailraceError: the disk does not let us, or another version of Tailrace made the home.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)  # what is in it is nobody else's business
            home_id(self.root)
            for folder in (self.run, self.kafka_data, self.root / "keys", self.root / "cache"):
                make_private(folder)
            (self.root / ".gitignore").write_text("*\n")  # keys and data are not for a repository
            (self.root / ".gitignore").chmod(0o600)
            (self.root / "keys").chmod(0o700)
        except OSError as error:
            raise TailraceError(
                f"the home {self} cannot be written ({error.strerror}): correct its rights or free the disk, "
                "or choose another folder with --home"
            ) from error

    def lock(self) -> HomeLock:
        """Takes the home for this process, until the lock is released or the process ends, however it ends.

        Raises:
            TailraceError: another process has it.
        """
        return HomeLock(self)

    def holder(self) -> int | None:
        """The process id of the ``tailrace up`` that runs in this home; None where none does."""
        try:
            with (self.run / "lock").open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0)
        except FileNotFoundError:
            pass
        return None

    def read(self, file: Path) -> dict[str, Any]:
        """One of the home's JSON files; empty where it is not there."""
        try:
            return dict(json.loads(file.read_text()))
        except FileNotFoundError:
            return {}

    def processes(self) -> list[dict[str, Any]]:
        """The entries of what was started, as its state says."""
        return list(self.read(self.state).get("processes", []))

    def write(self, file: Path, content: Mapping[str, Any]) -> None:
        """Replaces one of the home's JSON files, whole or not at all."""
        write_private(file, json.dumps(content, indent=2) + "\n")


class HomeLock:
    """Held by the one ``tailrace up`` of a home. The kernel gives it back when the process ends."""

    def __init__(self, home: Home) -> None:
        self._file = (home.run / "lock").open("a+")
        if not self._take():
            self._file.close()
            raise TailraceError(
                f"Tailrace already runs in {home} (process {home.holder()}): see it with `tailrace status`, "
                "end it with `tailrace down`, or start a second one beside it with `tailrace up --home OTHER`"
            )
        try:
            self._file.truncate(0)
            self._file.write(str(os.getpid()))
            self._file.flush()
        except OSError as error:
            raise TailraceError(
                f"the home {home} cannot be written ({error.strerror}): free the disk"
            ) from error

    def _take(self) -> bool:
        for _ in range(10):  # whoever asks for the holder has the lock for a moment
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                time.sleep(0.02)
        return False

    def close(self) -> None:
        self._file.close()
