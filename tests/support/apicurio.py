"""Apicurio's registry, which nobody here made, by the Java of the set-up: its schemas in memory, its door open.

It speaks Confluent's interface below a path of its own. What is downloaded (158 MB) is kept where Kafka's jars are.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.tools import leave_out
from tests.support.waiting import until_answers

from tailrace.errors import TailraceError
from tailrace.local.java import _maven, cache_dir, java
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process

_LOCK = Path(__file__).with_name("apicurio.lock")
_INTERFACE = "/apis/ccompat/v7"


@contextmanager
def apicurio_registry(config: pytest.Config, folder: Path) -> Iterator[str]:
    """The address of one that runs for the block, its program unpacked into the folder.

    Leaves the test out where the program cannot be downloaded; with CI=true the test fails then.
    """
    try:
        bundle = _bundle()
    except TailraceError as error:
        leave_out(config, "Apicurio Registry", str(error))
    with tarfile.open(bundle) as archive:
        archive.extractall(folder, filter="data")
    port, management = free_port(), free_port()
    settings = {
        "APICURIO_STORAGE_KIND": "sql",  # H2's, in memory
        "QUARKUS_HTTP_HOST": HOST,
        "QUARKUS_HTTP_PORT": str(port),
        "QUARKUS_MANAGEMENT_HOST": HOST,
        "QUARKUS_MANAGEMENT_PORT": str(management),
    }
    command = [str(java()), "-Xmx512m", "-XX:TieredStopAtLevel=1", "-jar", str(folder / "quarkus-run.jar")]
    server = Process(command, folder / "apicurio.log", os.environ | settings)
    server.launch()
    try:
        url = f"http://{HOST}:{port}{_INTERFACE}"
        until_answers(server, url, "/subjects")
        yield url
    finally:
        server.stop(10)


def _bundle() -> Path:
    """What the lock names, on this disk.

    Raises:
        TailraceError: it cannot be had, or is not what the lock says.
    """
    sha256, coordinate = _LOCK.read_text().splitlines()[-1].split()
    group, artifact, packaging, classifier, version = coordinate.split(":")
    jars = cache_dir() / "jars"
    path = jars / f"{group}-{artifact}-{version}-{classifier}.{packaging}"
    if not path.exists():
        jars.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=jars, prefix="download-") as scratch:
            released = _maven(Path(scratch)).project(group, artifact).at_version(version)
            try:
                came = Path(released.artifact(classifier, packaging).resolve())
            except Exception as error:  # whatever jgo and its HTTP client raise
                raise TailraceError(f"{coordinate} could not be downloaded: {error}") from error
            came.replace(path)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            path.unlink()
            raise TailraceError(f"{coordinate} does not have the sha256 of {_LOCK.name}")
    return path
