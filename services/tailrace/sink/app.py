"""The sink as a process."""

from __future__ import annotations

from contextlib import closing

from confluent_kafka import KafkaException

from tailrace.clickhouse.client import ClickHouse
from tailrace.clickhouse.migrations import migrate
from tailrace.clickhouse.views import ensure_views
from tailrace.contracts.records.lanes import CONTRACTS
from tailrace.errors import Unavailable
from tailrace.runtime.service import Service, run_service
from tailrace.sink.loop import Sink
from tailrace.sink.rows import RowReader
from tailrace.sink.unwritable import unwritable_alert
from tailrace.streaming.backends.abstract import Backend, read_to_end
from tailrace.streaming.backends.kafka.clients import sending
from tailrace.streaming.backends.kafka.group_offsets import stored_by
from tailrace.streaming.records import Message
from tailrace.streaming.time_source import SystemClock

CLICKHOUSE_TIMEOUT_S = 10.0
"""Of one call: a sink that waits for longer than a consumer may be silent loses its partitions."""

ALERT_S = 10.0
"""How long Kafka has to take an alert."""


def main() -> None:
    run_service("sink", make_sink)


def make_sink(service: Service) -> Sink:
    backend, group = service.kafka, service.group
    clickhouse = ClickHouse.connect(service.connection, timeout=CLICKHOUSE_TIMEOUT_S)

    def stored(topic: str) -> bool:
        return stored_by(service.connection, group)(topic)

    rows = RowReader(service.records, clickhouse, lambda: all_contracts(backend), stored)

    def restore() -> None:
        migrate(clickhouse, stored=stored_by(service.connection, group))
        rows.restore_tables()
        for model in rows.models():
            ensure_views(clickhouse, model)

    def report(message: Message, reason: str) -> None:
        alert = unwritable_alert(service.records, message, reason)
        with sending({**service.connection.kafka, "client.id": service.instance}) as producer:
            try:
                producer.deliver([alert], ALERT_S)
            except KafkaException as error:
                raise Unavailable(f"Kafka does not take an alert: {error.args[0].str()}") from error

    return Sink(
        backend,
        rows,
        clickhouse,
        group=group,
        clock=SystemClock(),
        restore=restore,
        report=report,
        stop=service.stop,
    )


def all_contracts(backend: Backend) -> list[Message]:
    """Everything that is on the contracts' topic now."""
    with closing(backend.reader([CONTRACTS])) as reader:
        return list(read_to_end(reader))


if __name__ == "__main__":
    main()
