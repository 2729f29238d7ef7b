"""Java programs: compiled by Eclipse's compiler and run under the broker's Java, with the broker's jars."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tailrace.local.java import jars, java
from tailrace.local.kafka import LOCK

_COMPILER = Path(__file__).with_name("ecj.lock")


def compile_java(source: Path, into: Path, also: Sequence[Path] = ()) -> str:
    """Compiles one file against the jars of the local Kafka, kafka-clients among them, and ``also`` others.

    Returns:
        The class path with which to run it.
    """
    classpath = os.pathsep.join(map(str, [*jars(LOCK), *also]))
    compiler = os.pathsep.join(map(str, jars(_COMPILER)))
    command = [str(java()), "-cp", compiler, "org.eclipse.jdt.internal.compiler.batch.Main"]
    done = subprocess.run(
        [*command, "-17", "-cp", classpath, "-d", str(into), str(source)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{source} does not compile:\n{done.stdout}{done.stderr}"
    return os.pathsep.join([str(into), classpath])


def run_java(classpath: str, main: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(java()), "-cp", classpath, main, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=None if env is None else dict(env),
    )
    assert done.returncode == 0, f"{main} failed:\n{done.stdout}{done.stderr}"
    return done.stdout
