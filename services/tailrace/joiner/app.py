"""The joiner as a process: matches labels and actions to predictions."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.access.own_folders import state_folder
from tailrace.contracts.records.lanes import CONTRACTS
from tailrace.joiner.processor import JoiningProcessor
from tailrace.joiner.rocks_store import open_store
from tailrace.joiner.store import KeyValueStore
from tailrace.runtime.service import Service, run_logic
from tailrace.streaming.backends.abstract import Retriable
from tailrace.streaming.backends.kafka.reading import everything_on
from tailrace.streaming.records import Message

LINGER_S = 0.05
"""Nobody waits for an outcome by the millisecond; a larger batch costs less."""

RETRY_S = 0.2


def main() -> None:
    run_logic("joiner", make_logic, co_partitioned=True, linger_s=LINGER_S)


def make_logic(service: Service) -> JoiningProcessor:
    folder = state_folder(service.settings.home, service.name)

    def store(lane: str, number: int) -> KeyValueStore:
        return open_store(folder, f"{lane}-{number}")

    def partitions(topic: str) -> int:
        while True:
            try:
                return service.kafka.topics()[topic]
            except Retriable:
                if service.stop.wait(RETRY_S):
                    raise

    def catch_up() -> Sequence[Message]:
        return everything_on(service.connection, (CONTRACTS,))

    return JoiningProcessor(service.records, store, partitions, catch_up)


if __name__ == "__main__":
    main()
