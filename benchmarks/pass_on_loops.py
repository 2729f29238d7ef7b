"""Starts loops that only pass bytes on, each between topics of its own."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import Broker
from benchmarks.running import PARTITIONS, Loop, launched
from tailrace.local.java import jars, java
from tailrace.testing.java_program import compile_java

HERE = Path(__file__).parent
EMPTY, BATCH, STREAMS, STREAMS_10 = "empty loop", "batch loop", "Kafka Streams", "Kafka Streams, 10 ms"

Command = Callable[[Sequence[str]], Sequence[str]]
"""Of bootstrap servers, source, target and group."""


def loop_of(kafka: Broker, folder: Path, name: str, command: Command) -> Loop:
    """Starts a program that reads one new topic and writes another; its log is in the folder."""
    kind = name.lower().replace(",", "").replace(" ", "-")
    source, target = (kafka.topic(f"{kind}-{way}", PARTITIONS) for way in ("in", "out"))
    group = f"{kind}-{uuid.uuid4().hex[:8]}"
    arguments = [kafka.connection.bootstrap, source, target, group]
    return Loop([launched(command(arguments), folder / f"{kind}.log")], group, source, target)


def pass_on_loop(kafka: Broker, folder: Path, name: str) -> Loop:
    """Starts one of those named above."""
    if name in (EMPTY, BATCH):
        module = ["-m", "benchmarks.passing_on", name.split()[0]]
        return loop_of(kafka, folder, name, lambda arguments: [sys.executable, *module, *arguments])
    classpath = compile_java(HERE / "StreamsPassOn.java", folder, jars(HERE / "streams-jars.lock"))
    interval = ["10"] if name == STREAMS_10 else []
    program = [str(java()), "-Xmx1g", "-cp", classpath, "StreamsPassOn"]
    return loop_of(
        kafka, folder, name, lambda arguments: [*program, *arguments, str(folder / "state"), *interval]
    )
