"""evaluator as a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tailrace.evaluator.logic import CONTROL_TOPICS, PerformanceWindows
from tailrace.kit.codec import ControlCodec
from tailrace.kit.errors import Retry, TailraceError
from tailrace.kit.log import LogError
from tailrace.kit.messages import Message
from tailrace.kit.reading import read_all
from tailrace.kit.service import Service, run_logic
from tailrace.kit.windowed import WindowedLogic
from tailrace.models.manifest import Manifest
from tailrace.models.package import verified_manifest
from tailrace.models.trust import TrustStore

LINGER_S = 0.2
"""Nobody waits for a window for less than that; fewer, larger batches make fewer parts."""


def main() -> None:
    run_logic("evaluator", make_logic, linger_s=LINGER_S)


def make_logic(service: Service) -> WindowedLogic:
    trust = TrustStore(service.settings.home / "keys")

    def verify(record: Mapping[str, Any]) -> Manifest:
        return verified_manifest(record, trust)

    def catch_up() -> Sequence[Message]:
        try:
            return list(read_all(service.connection, CONTROL_TOPICS))
        except (TailraceError, LogError) as away:
            raise Retry(f"the control topics cannot be read: {away}") from away

    windows = PerformanceWindows(service.registry, verify, catch_up)
    return WindowedLogic(windows, ControlCodec(service.registry), lambda topic: service.kafka.topics()[topic])


if __name__ == "__main__":
    main()
