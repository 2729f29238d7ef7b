"""The trainer's side of Faust: an app that reads what is committed, whole topics from their start, and says how far.

Three things differ from Faust's own driver, which by default reads aborted transactions too: the consumer is
read_committed; all topics (of one partition each) go to one instance; and a partition is always read from its start,
since the state is a fold of the topics. Offsets are committed all the same, so that those who watch a group see it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import aiokafka
import faust
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers import aiokafka as driver

from tailrace.access.private_files import make_private
from tailrace.connection import Connection
from tailrace.errors import UsageError
from tailrace.streaming.records import Message, PlainMessage

SESSION_S = 6.0
_FETCH_WAIT_MS = 100

OnMessage = Callable[[Message], Awaitable[None]]


class ReadCommittedThread(driver.AIOKafkaConsumerThread):
    """The thread in which aiokafka runs.

    Attributes:
        reached: by topic, the position up to which it has fetched (markers and aborted records included), and the
            offset of the last record that it handed over (-1: none).
    """

    reached: dict[str, tuple[int, int]]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reached = {}

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[RangePartitionAssignor],
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """To the start instead, of every partition that is assigned."""
        starts: Mapping[Any, int] = await self.call_thread(self._seek_to_start)
        return starts

    async def _seek_to_start(self) -> Mapping[Any, int]:
        consumer = self._ensure_consumer()
        partitions = list(consumer.assignment())
        self.reached = {}
        if not partitions:
            return {}
        starts = await consumer.beginning_offsets(partitions)
        for partition, offset in starts.items():
            consumer.seek(partition, offset)
        # Faust takes what is given here for the last offset read, and 0 for none.
        return {partition: max(0, offset - 1) for partition, offset in starts.items()}

    async def _fetch_records(self, consumer: Any, *arguments: Any, **options: Any) -> Any:
        records = await super()._fetch_records(consumer, *arguments, **options)
        for partition in consumer.assignment():
            _, last = self.reached.get(partition.topic, (0, -1))
            fetched = records.get(partition)
            position = await consumer.position(partition)
            self.reached[partition.topic] = position, fetched[-1].offset if fetched else last
        return records


class ReadCommittedConsumer(driver.Consumer):
    def _new_consumer_thread(self) -> ReadCommittedThread:
        return ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def reached(self) -> Mapping[str, tuple[int, int]]:
        """See `ReadCommittedThread`."""
        return cast(ReadCommittedThread, self._thread).reached


class ReadCommittedTransport(driver.Transport):
    Consumer = ReadCommittedConsumer


def make_app(
    connection: Connection, group: str, topics: Sequence[str], on_message: OnMessage, folder: Path
) -> faust.App:
    """An app with one agent, which hands every committed record to ``on_message`` in the order
    of each topic. It is started and stopped with ``start`` and ``stop``, inside a running event loop.

    Args:
        folder: made; Faust wants one, where it keeps nothing.
    """
    make_private(folder)
    app = faust.App(
        group,
        broker=[f"kafka://{server}" for server in connection.bootstrap.split(",")],
        broker_credentials=_credentials(connection.kafka),
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=SESSION_S / 4,
        broker_request_timeout=30.0,
        broker_commit_interval=1.0,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        datadir=str(folder),
        loop=asyncio.get_running_loop(),
    )
    app.transport = ReadCommittedTransport(app.conf.broker_consumer, app, loop=app.loop)
    channel = app.topic(*topics, key_serializer="raw", value_serializer="raw")

    async def fold(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            read = event.message
            headers = [(name, value) for name, value in read.headers or ()]
            place = read.topic, read.partition, read.offset
            await on_message(PlainMessage(*place, read.value, read.key, headers))

    app.agent(channel)(fold)
    return app


def _credentials(kafka: Mapping[str, str]) -> SASLCredentials | SSLCredentials | None:
    """Faust's, from librdkafka's options."""
    protocol = kafka.get("security.protocol", "PLAINTEXT").upper()
    context = None
    if protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=kafka.get("ssl.ca.location"))
        if "ssl.certificate.location" in kafka:
            context.load_cert_chain(
                kafka["ssl.certificate.location"],
                kafka.get("ssl.key.location"),
                kafka.get("ssl.key.password"),
            )
    if protocol == "SSL":
        return SSLCredentials(context)
    if not protocol.startswith("SASL"):
        return None
    mechanism = kafka.get("sasl.mechanism", "PLAIN")
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise UsageError(
            f"KAFKA_SASL_MECHANISM={mechanism}: the trainer speaks PLAIN and SCRAM-SHA-256 or -512"
        )
    return SASLCredentials(
        username=kafka.get("sasl.username"),
        password=kafka.get("sasl.password"),
        mechanism=mechanism,
        ssl_context=context,
    )
