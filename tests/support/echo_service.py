"""A service that passes bytes on, as a process: ``python -m tests.support.echo_service GROUP INSTANCE FROM TO``."""

from __future__ import annotations

import os
import sys

from tests.support.log_conformance import Echo
from tests.support.simulation import quarantine

from tailrace.runtime.service import Service, run_service
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.time_source import SystemClock


def main() -> None:
    group, instance, source, target = sys.argv[1:]

    def make(service: Service) -> ExactlyOnceRunner:
        return ExactlyOnceRunner(
            KafkaBackend(service.connection, instance),
            Echo(source, target),
            service=group,
            group=group,
            transactional_id=f"{group}-{instance}",
            clock=SystemClock(),
            quarantine=quarantine,
            stop=service.stop,
        )

    os.environ.setdefault("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    run_service(group, make)


if __name__ == "__main__":
    main()
