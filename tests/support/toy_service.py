"""The toy windows as a process: ``python -m tests.support.toy_service INSTANCE``."""

from __future__ import annotations

import os
import sys

from tests.support.simulation import quarantine
from tests.support.toy_windows import CODEC, ToyWindows

from tailrace.runtime.service import Service, run_service
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.time_source import SystemClock
from tailrace.windows.processor import WindowedProcessor


def main() -> None:
    instance = sys.argv[1]

    def make(service: Service) -> ExactlyOnceRunner:
        backend = KafkaBackend(service.connection, instance)
        return ExactlyOnceRunner(
            backend,
            WindowedProcessor(ToyWindows(), CODEC, lambda topic: backend.topics()[topic], keep_after=100),
            service="toy",
            group="toy",
            transactional_id=f"toy-{instance}",
            clock=SystemClock(),
            quarantine=quarantine,
            stop=service.stop,
            max_batch=500,
            linger_s=0.05,
        )

    os.environ.setdefault("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    run_service("toy", make)


if __name__ == "__main__":
    main()
