"""drift as a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tailrace.drift.logic import CONTROL_TOPICS, DriftWindows
from tailrace.kit.codec import ControlCodec
from tailrace.kit.errors import Retry, TailraceError
from tailrace.kit.log import LogError
from tailrace.kit.messages import Message
from tailrace.kit.reading import read_all
from tailrace.kit.service import Service, run_logic
from tailrace.kit.windowed import WindowedLogic
from tailrace.models.fetch import KafkaChunks, PackageFetcher
from tailrace.models.manifest import Manifest
from tailrace.models.package import open_reference
from tailrace.models.reference import Reference
from tailrace.models.trust import TrustStore

CACHE = ("cache", "packages")
LINGER_S = 0.2
"""Nobody waits for a window for less than that; fewer, larger batches make fewer parts."""


def main() -> None:
    run_logic("drift", make_logic, linger_s=LINGER_S)


def make_logic(service: Service) -> WindowedLogic:
    home = service.settings.home
    fetch = PackageFetcher(home.joinpath(*CACHE), KafkaChunks(service.connection))
    trust = TrustStore(home / "keys")

    def opened(record: Mapping[str, Any]) -> tuple[Manifest, Reference]:
        return open_reference(record, fetch, trust)

    def catch_up() -> Sequence[Message]:
        try:
            return list(read_all(service.connection, CONTROL_TOPICS))
        except (TailraceError, LogError) as away:
            raise Retry(f"the control topics cannot be read: {away}") from away

    windows = DriftWindows(service.registry, opened, catch_up)
    return WindowedLogic(windows, ControlCodec(service.registry), lambda topic: service.kafka.topics()[topic])


if __name__ == "__main__":
    main()
