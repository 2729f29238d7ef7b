"""Running a service as a process: settings, logs, health, signals, exit codes; and its processor on the runner."""

from __future__ import annotations

import logging
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event
from typing import Protocol

from tailrace.alerts.alert import quarantine_alert
from tailrace.avro.registry import RegistryClient
from tailrace.confinement.profiles import summary
from tailrace.connection import Connection, connect
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import TailraceError, UsageError
from tailrace.runtime.memory import settle_memory
from tailrace.settings import Settings, read_settings
from tailrace.shortages import shortage
from tailrace.streaming.backends.abstract import Fatal
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.processor import Output, Processor
from tailrace.streaming.records import DeadLetter, Message, RecordRef
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.time_source import SystemClock
from tailrace.telemetry.health import HealthServer, Status
from tailrace.telemetry.logging import log_as_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """What a service finds around it.

    Attributes:
        stop: set when the process was told to end (SIGTERM, SIGINT); it then has ten seconds.
    """

    name: str
    settings: Settings
    connection: Connection
    registry: RegistryClient
    stop: Event = field(default_factory=Event)

    @property
    def group(self) -> str:
        """The consumer group that all instances of the service share."""
        return f"tailrace.{self.name}"

    @cached_property
    def instance(self) -> str:
        """The instance's own name: the same after a restart where the supervisor gives one."""
        return f"{self.group}.{self.settings.instance or uuid.uuid4().hex[:12]}"

    @cached_property
    def records(self) -> ControlRecords:
        """Reads control records, and writes those of the service with its own key."""
        return ControlRecords.of_home(self.registry, self.settings.home, self.name)

    @cached_property
    def kafka(self) -> KafkaBackend:
        """The instance's way to Kafka."""
        return KafkaBackend(self.connection, self.instance, batch_s=self.settings.batch_seconds)


class Runnable(Status, Protocol):
    """A loop that turns until the service's ``stop`` is set, and says how it is."""

    def run(self) -> None: ...


def run_service(name: str, make: Callable[[Service], Runnable]) -> None:
    """Runs what ``make`` makes until SIGTERM or SIGINT, and ends the process if it fails.

    Exit codes: 0 after a signal, 1 when the service cannot go on (the log says why), 2 for a wrong setting.
    """
    try:
        settings = read_settings()
        log_as_json(name, settings.log_level)
        connection = connect(home=settings.home, user=name)
        registry = RegistryClient(connection.registry, connection.registry_auth)
        service = Service(name, settings, connection, registry)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop.set())
        loop = make(service)
        health = HealthServer(settings.health_host, settings.health_port, loop, time.perf_counter_ns)
        settle_memory()
        where = {"health": health.address, "kafka": connection.bootstrap}
        log.info("started", extra={**where, "confinement": summary()})
        loop.run()
        health.close()
        service.kafka.close()
        log.info("stopped")
    except TailraceError as error:
        log.critical(str(error))
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from error
    except Fatal as error:
        log.critical("this process cannot go on and is to be started afresh", extra={"reason": str(error)})
        raise SystemExit(1) from error
    except Exception as error:
        if (short := shortage(error)) is not None:
            log.critical(short, extra={"reason": str(error)})
        else:
            log.critical("a bug stopped the service; nothing of the batch is committed", exc_info=True)
        raise SystemExit(1) from error


def run_logic(
    name: str,
    make_logic: Callable[[Service], Processor],
    *,
    co_partitioned: bool = False,
    linger_s: float = 0.0,
) -> None:
    """Runs a service's logic on the exactly-once runner against Kafka; see `ExactlyOnceRunner` and `run_service`."""

    def make(service: Service) -> ExactlyOnceRunner:
        return ExactlyOnceRunner(
            service.kafka,
            make_logic(service),
            service=name,
            group=service.group,
            transactional_id=service.instance,
            clock=SystemClock(),
            quarantine=PoisonRecordQuarantine(name, service.records),
            stop=service.stop,
            max_batch=service.settings.max_batch,
            co_partitioned=co_partitioned,
            linger_s=linger_s,
        )

    run_service(name, make)


class PoisonRecordQuarantine:
    """What is written in place of a message that stops the process: a dead letter, and an alert for people.

    A message of a control topic has no dead-letter topic; it stays where it is, and the alert says where.
    """

    def __init__(self, service: str, records: ControlRecords) -> None:
        self._service = service
        self._records = records

    def __call__(self, message: Message, reason: str) -> Output:
        source = RecordRef.of(message)
        summary = (
            f"{self._service} cannot process {source} and has left it out: {reason}. It is a bug; look at the "
            f"log of {self._service}"
        )
        alert = quarantine_alert(self._service, message, summary, reason)
        output = Output([self._records.record("Alert", alert, key=source.topic)])
        lane = Lane.of(source.topic)
        if lane.name != "tailrace":
            output.dead_letters.append(DeadLetter(lane.dead_letters, message, "quarantined", reason))
        return output
