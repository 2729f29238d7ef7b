"""A service that counts in windows, as a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.runtime.service import Service, run_logic
from tailrace.streaming.backends.kafka.reading import everything_on
from tailrace.streaming.records import Message
from tailrace.windows.kinds import Windows
from tailrace.windows.processor import WindowedProcessor

CatchUp = Callable[[], Sequence[Message]]
LINGER_S = 0.2
"""Nobody waits for a window for less than that; fewer, larger batches make fewer parts."""


def run_windows(name: str, make_windows: Callable[[Service, CatchUp], Windows]) -> None:
    """Runs a kind of windows against Kafka; see `run_logic`.

    Args:
        name: the service's.
        make_windows: makes the kind, given everything that is on its control topics by now, on demand; this
            raises Unavailable where Kafka is away.
    """

    def make_logic(service: Service) -> WindowedProcessor:
        def catch_up() -> Sequence[Message]:
            return everything_on(service.connection, windows.control_topics())

        windows = make_windows(service, catch_up)
        codec = ControlCodec(service.registry)
        return WindowedProcessor(windows, codec, lambda topic: service.kafka.topics()[topic])

    run_logic(name, make_logic, linger_s=LINGER_S)
