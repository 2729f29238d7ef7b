"""A service that counts in windows, as a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tailrace.kit.codec import ControlCodec
from tailrace.kit.errors import Retry, TailraceError
from tailrace.kit.log import LogError
from tailrace.kit.messages import Message
from tailrace.kit.reading import read_all
from tailrace.kit.service import Service, run_logic
from tailrace.kit.windowed import WindowedLogic
from tailrace.kit.windows import Windows

CatchUp = Callable[[], Sequence[Message]]
LINGER_S = 0.2
"""Nobody waits for a window for less than that; fewer, larger batches make fewer parts."""


def run_windows(name: str, make_windows: Callable[[Service, CatchUp], Windows]) -> None:
    """Runs a kind of windows against Kafka; see `run_logic`.

    Args:
        name: the service's.
        make_windows: makes the kind, given everything that is on its control topics by now, on demand; this
            raises Retry where Kafka is away.
    """

    def make_logic(service: Service) -> WindowedLogic:
        def catch_up() -> Sequence[Message]:
            try:
                return list(read_all(service.connection, windows.control_topics()))
            except (TailraceError, LogError) as away:
                raise Retry(f"the control topics cannot be read: {away}") from away

        windows = make_windows(service, catch_up)
        codec = ControlCodec(service.registry)
        return WindowedLogic(windows, codec, lambda topic: service.kafka.topics()[topic])

    run_logic(name, make_logic, linger_s=LINGER_S)
