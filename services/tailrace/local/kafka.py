"""A real Apache Kafka on this machine: one node, KRaft, on the loopback interface, open or with users."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tailrace.access.credentials import OWNER
from tailrace.access.private_files import write_private
from tailrace.errors import TailraceError
from tailrace.kafka_access.acls import align_acls
from tailrace.kafka_access.grants import ADMIN
from tailrace.local import kafka_security as security
from tailrace.local.java import cache_dir, jars, java, java_version
from tailrace.local.ports import HOST, free_port, is_free, require_free
from tailrace.local.process import Process, processor_time
from tailrace.runtime.patience import Patience

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer

LOCK = Path(__file__).with_name("kafka-jars.lock")
_LOG_CONFIG = Path(__file__).with_name("log4j2.properties")

# What one node needs, and what makes it quick: see docs/adr/0010-a-real-kafka-from-pip.md.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "CLIENTS",
    "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    # Only closed segments are tidied up, and all that is left is read before a broker that comes back knows its groups.
    # Of 100 MiB, the default, hardly any would ever be closed here.
    "offsets.topic.segment.bytes": str(4 * 1024 * 1024),
    "transaction.state.log.segment.bytes": str(4 * 1024 * 1024),
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # Offsets outlive the longest retention: a group that was away for months goes on where it was.
    "offsets.retention.minutes": str(10 * 365 * 24 * 60),
    # What a killed service left open holds back readers until it is found: look every second, not every ten.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A killed broker may register again only when its former session has ended, nine seconds by default. Its files take
    # about as long as this to be looked through; and it is back before its clients' sessions (six seconds) have ended.
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "250",
    "auto.create.topics.enable": "false",
    "log.message.timestamp.type": "LogAppendTime",
    # A derived record may be many times as large as a request (1 MiB); each topic sets a limit of its own.
    "message.max.bytes": str(17 * 1024 * 1024),
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
}
_JVM = ("-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-Djava.awt.headless=true")
# Classes and profiles only: Java 25 finds adapters of the wrong name among those that it kept, and says so.
_SNAPSHOT = (
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:-AOTAdapterCaching",
    "-XX:-AOTStubCaching",
)


def is_first_start(env: Mapping[str, str]) -> bool:
    """Whether a start has to fetch and prepare what is then kept for all later ones, which takes a while."""
    return not any(cache_dir(env).glob("kafka-*.aot"))


class LocalKafka(Process):
    """One broker over one data folder: started, stopped, killed, started again on the same port and data.

    Args:
        users: passwords by user, the broker's own `ADMIN` among them. Who is not one of them cannot connect, and each
            may do what `tailrace.kafka_access.grants` grants. Without it anybody may do anything.

    Attributes:
        port: where clients connect. Chosen at the first start where not given, and then kept.
        log: what the broker writes to stdout and stderr.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 0,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        assert users is None or ADMIN in users
        self.data = data.resolve()
        super().__init__((), log or self.data / "kafka.log", os.environ if env is None else env)
        self.port = port
        self._users = users
        self._has_users = False
        self._trial: Path | None = None

    @property
    def bootstrap(self) -> str:
        """``host:port`` for ``bootstrap.servers``."""
        return f"{HOST}:{self.port}"

    def options(self, user: str) -> dict[str, str]:
        """What librdkafka needs to connect, as this user where the broker has users."""
        if self._users is None:
            return {"bootstrap.servers": self.bootstrap}
        return security.client_options(self.bootstrap, user, self._users[user])

    def start(self, timeout: float = 60) -> None:
        """Starts the broker and returns when topics can be created.

        Args:
            timeout: seconds without any progress; a broker that looks through its files takes as long as it takes.

        Raises:
            TailraceError: no Java, no jars, port taken, folder not writable, or the broker does not come up.
        """
        assert not self.running(), "started twice"
        classpath = self._classpath()
        command = [str(java(self._env)), *_JVM, f"-Dlog4j2.configurationFile={_LOG_CONFIG}", "-cp", classpath]
        if self._trial is None and (snapshot := self._snapshot(classpath)):
            command[1:1] = [*_SNAPSHOT, f"-XX:AOTCache={snapshot}"]
        fixed = self.port != 0
        if fixed:
            require_free(self.port, "Kafka")
        for attempt in range(3):
            if not fixed:
                self.port = free_port()
            config = self._write_config()
            if not (self.data / "logs" / "meta.properties").exists():
                self._format(command, config)
            if self._trial is not None:
                command[1:1] = [*_SNAPSHOT, f"-XX:AOTCacheOutput={self._trial}"]
            self.command = [*command, "kafka.Kafka", str(config)]
            self.launch()
            if self._answers(Patience(timeout)):
                self._align_users()
                return
            self.kill()
            words = self.last_words()
            # Somebody else took the port between our looking and the broker's binding: choose anew.
            if fixed or attempt == 2 or "Address already in use" not in words:
                raise TailraceError(f"Kafka did not come up:\n{words}\nAll of it: {self.log}")

    def _classpath(self) -> str:
        if home := self._env.get("KAFKA_HOME"):
            libs = Path(home, "libs")
            if not any(libs.glob("kafka_*.jar")):
                raise TailraceError(
                    f"KAFKA_HOME is {home}, but there is no {libs}/kafka_*.jar: point it to an unpacked "
                    "Kafka 4, or unset it"
                )
            return f"{libs}/*"
        return os.pathsep.join(map(str, jars(LOCK)))

    def _snapshot(self, classpath: str) -> Path | None:
        """What the JVM had loaded, linked and profiled in a trial run; it halves a start's time and work.

        Made at the first start on a machine, which takes some ten seconds longer for it. None where the Java is
        older than 25, in which this came (JEP 514, 515), or cannot do it, and for an installed Kafka.
        """
        release = java(self._env).parents[1] / "release"
        if self._env.get("KAFKA_HOME") or (java_version(release.parent) or 0) < 25:
            return None
        made_of = "\n".join([release.read_text(), *_JVM, *_SNAPSHOT, classpath, *security.SETTINGS.values()])
        name = f"kafka-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
        cache = cache_dir(self._env)
        snapshot = cache / f"{name}.aot"
        if not snapshot.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / f"{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not snapshot.exists():
                    self._make_snapshot(snapshot)
        return snapshot if snapshot.stat().st_size else None

    def _make_snapshot(self, snapshot: Path) -> None:
        from confluent_kafka import KafkaException

        draft = snapshot.with_suffix(".draft")
        with tempfile.TemporaryDirectory(prefix="tailrace-kafka-") as folder:
            trial = LocalKafka(Path(folder), env=self._env, users={ADMIN: "trial", OWNER: "trial"})
            trial._trial = draft
            try:
                trial.start()
                _exercise(trial.options(ADMIN))
            except (TailraceError, KafkaException):
                trial.kill()
            trial.stop(120)  # it is written at the end
        if not draft.exists():
            draft.touch()  # not to be had here: not tried again
        draft.replace(snapshot)

    def _write_config(self) -> Path:
        controller = f"{HOST}:{free_port()}"
        settings = SETTINGS | {
            "listeners": f"CLIENTS://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENTS://{self.bootstrap}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.data / "logs"),
        }
        if self._users is not None:
            settings |= security.SETTINGS | security.jaas(self._users[ADMIN])
        path = self.data / "server.properties"
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            write_private(path, "".join(f"{key}={value}\n" for key, value in settings.items()))
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.touch()
        except OSError as error:
            raise TailraceError(
                f"Kafka's data folder {self.data} cannot be written ({error.strerror}): free the disk or "
                "correct its rights, or choose another one"
            ) from error
        return path

    def _format(self, command: list[str], config: Path) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")  # as Kafka makes it
        tool = ["kafka.tools.StorageTool", "format", "-c", str(config), f"--cluster-id={cluster_id}"]
        arguments = self.data / "format.arguments"
        if self._users is not None:
            write_private(arguments, security.format_arguments(self._users[ADMIN]))
            tool.append(f"@{arguments}")
        process = Process([*command, *tool], self.log, self._env)
        process.launch()
        status = process.wait()
        arguments.unlink(missing_ok=True)
        if status != 0:
            raise TailraceError(f"Kafka's data folder could not be made:\n{process.last_words()}")

    def _answers(self, patience: Patience) -> bool:
        """True once a client sees the broker; False when its process has ended or makes no progress."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        while self.running() and patience.look(processor_time(self.pid)):
            if is_free(self.port):
                time.sleep(0.02)
                continue
            try:
                with AdminClient({**self.options(ADMIN), "log_level": 0}) as client:
                    if client.list_topics(timeout=2).brokers:
                        return True
            except KafkaException:
                time.sleep(0.05)
        return False

    def _align_users(self) -> None:
        """Makes the users and their rights what they should be, once: the broker keeps them."""
        from confluent_kafka import KafkaException

        if self._users is None or self._has_users:
            return
        admin = self.options(ADMIN)
        try:
            security.set_passwords(admin, {u: p for u, p in self._users.items() if u != ADMIN})
        except KafkaException as error:
            raise TailraceError(f"Kafka does not take its users: {error.args[0].str()}") from error
        align_acls(admin)
        self._has_users = True


def _exercise(kafka: Mapping[str, str]) -> None:
    """What services do all day, so that the broker has loaded it: topics, transactions, groups."""
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    common: dict[str, str | int | float | bool] = {**kafka, "log_level": 0}
    with AdminClient(common) as admin:  # must outlive its futures
        admin.create_topics([NewTopic("trial", 1, 1)])["trial"].result(30)
    producer = Producer({**common, "transactional.id": "trial"})
    with Consumer({**common, "group.id": "trial", "auto.offset.reset": "earliest"}) as consumer:
        consumer.subscribe(["trial"])
        try:
            _transactions(producer, consumer)
        finally:
            del producer


def _transactions(producer: Producer, consumer: Consumer) -> None:
    producer.init_transactions(30)
    for _ in range(50):
        producer.begin_transaction()
        for number in range(20):
            producer.produce("trial", bytes(200), str(number))
        consumer.consume(20, 0.1)
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 30
        )
        producer.commit_transaction(30)
