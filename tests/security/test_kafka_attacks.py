"""Attacks on the broker: somebody without a password, somebody else on the machine, and a service that goes astray."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from tests.support.another_user import as_another_user, readable
from tests.support.secured_kafka import LANE, quiet, secured_kafka

from tailrace.access.credentials import APPLICATION, KAFKA, OPS, Credentials
from tailrace.kafka_access.grants import ADMIN, USERS
from tailrace.local.kafka import LocalKafka
from tailrace.local.kafka_security import client_options
from tailrace.local.ports import HOST


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder whose parents everybody may enter, so that only what is in it protects itself."""
    folder = Path(tempfile.mkdtemp(prefix="tailrace-security-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def kafka(home: Path) -> Iterator[LocalKafka]:
    with secured_kafka(home) as broker:
        yield broker


def _refused(options: dict[str, str]) -> str:
    """What a client is told that is not let in."""
    errors: list[KafkaError] = []
    client = AdminClient(quiet(options, error_cb=errors.append))
    with pytest.raises(KafkaException):
        client.list_topics(timeout=3)
    client.poll(0.5)
    return " ".join(error.str() for error in errors)


def _write(options: dict[str, str], topic: str) -> KafkaError | None:
    outcome: list[KafkaError | None] = []
    producer = Producer(quiet(options))
    producer.produce(topic, b"forged", on_delivery=lambda error, _: outcome.append(error))
    assert producer.flush(30) == 0
    return outcome[0]


def _end(kafka: LocalKafka, topic: str) -> int:
    consumer = Consumer(quiet(kafka.options(ADMIN), **{"group.id": "unused"}))
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
    consumer.close()
    return int(end)


def test_who_does_not_log_in_is_not_served(kafka: LocalKafka) -> None:
    _refused({"bootstrap.servers": kafka.bootstrap})


@pytest.mark.parametrize("user", [APPLICATION, ADMIN, "nobody"])
def test_a_wrong_password_is_not_taken(kafka: LocalKafka, user: str) -> None:
    assert "uthentication failed" in _refused(client_options(kafka.bootstrap, user, "guessed"))


def test_a_password_is_taken_under_no_other_mechanism(kafka: LocalKafka) -> None:
    plain = {**kafka.options(APPLICATION), "sasl.mechanism": "PLAIN"}
    assert "mechanism" in _refused(plain).lower()


def test_the_controller_lets_nobody_else_in(kafka: LocalKafka, home: Path) -> None:
    """Its port is on the loopback interface too, and knows one user and mechanism."""
    settings = dict(
        line.split("=", 1) for line in (home / "kafka" / "server.properties").read_text().splitlines()
    )
    controller = settings["controller.quorum.voters"].partition("@")[2]
    for options in (
        {"bootstrap.servers": controller},
        kafka.options(APPLICATION) | {"bootstrap.servers": controller},
        kafka.options(APPLICATION) | {"bootstrap.servers": controller, "sasl.mechanism": "PLAIN"},
    ):
        _refused(options)


def test_another_user_of_the_machine_reads_no_password(kafka: LocalKafka, home: Path) -> None:
    folder = Credentials(home).folder
    for entry in (folder, folder / KAFKA, *(folder / KAFKA).iterdir()):
        entry.chmod(0o755)  # the files by themselves, too
    passwords = [*(folder / KAFKA).glob("*/password")]
    assert passwords
    secret = [home / "kafka" / "server.properties", *passwords, Path(f"/proc/{kafka.pid}/environ")]
    command = Path(f"/proc/{kafka.pid}/cmdline")
    assert as_another_user(lambda: readable([*secret, command])) == [str(command)]
    assert readable(secret) == [str(path) for path in secret]
    assert not (home / "kafka" / "format.arguments").exists()


def test_no_command_line_shows_a_password(kafka: LocalKafka, home: Path) -> None:
    """Everybody may read those. The one that formats the folder is over by now: its words are in no argument either."""
    command = Path(f"/proc/{kafka.pid}/cmdline").read_bytes().decode()
    passwords = [path.read_text().strip() for path in (Credentials(home).folder / KAFKA).glob("*/password")]
    assert passwords
    assert "kafka.Kafka" in command
    assert not [password for password in passwords if password in command]


def test_formatting_shows_no_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tailrace.local import kafka as module

    commands: list[list[str]] = []

    class Recorded(module.Process):
        def launch(self) -> None:
            commands.append(self.command)
            arguments = [Path(word[1:]) for word in self.command if word.startswith("@")]
            assert all(path.stat().st_mode & 0o077 == 0 for path in arguments)
            super().launch()

    monkeypatch.setattr(module, "Process", Recorded)
    broker = LocalKafka(home / "another", users={ADMIN: "a-password-to-be-seen", "owner": "another-one"})
    try:
        broker.start()
    finally:
        broker.kill()
    assert [word for command in commands for word in command if "StorageTool" in word]
    assert not [word for command in commands for word in command if "a-password" in word]


def test_who_took_the_broker_s_port_learns_no_password(kafka: LocalKafka) -> None:
    """A client that finds somebody else at the broker's address sends what shows that it knows the password, only."""
    heard = bytearray()
    with socket.socket() as fake:
        fake.bind((HOST, 0))
        fake.listen()
        fake.settimeout(10)

        def listen() -> None:
            connection, _ = fake.accept()
            connection.settimeout(2)
            try:
                while part := connection.recv(65536):
                    heard.extend(part)
            except OSError:
                return

        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        options = kafka.options(ADMIN) | {"bootstrap.servers": f"{HOST}:{fake.getsockname()[1]}"}
        client = AdminClient(quiet(options))
        with pytest.raises(KafkaException):
            client.list_topics(timeout=2)
        listening.join(10)
    assert heard
    assert options["sasl.password"].encode() not in heard


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        (APPLICATION, "tailrace.rollouts"),
        (APPLICATION, "tailrace.commands"),
        (APPLICATION, LANE.predictions),
        ("scorer", "tailrace.contracts"),
        ("scorer", "tailrace.rollouts"),
        ("shadow-scorer", LANE.predictions),
        ("trainer", "tailrace.rollouts"),
        ("registry", "tailrace.contracts"),
        (OPS, LANE.requests),
        (OPS, "tailrace.commands"),
        ("owner", "tailrace.rollouts"),
        (APPLICATION, "_schemas"),
    ],
)
def test_a_forged_record_is_not_written(kafka: LocalKafka, user: str, topic: str) -> None:
    before = _end(kafka, topic)
    error = _write(kafka.options(user), topic)
    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert _end(kafka, topic) == before


def test_nobody_reads_what_is_the_broker_s_own(kafka: LocalKafka) -> None:
    group = Consumer(quiet(kafka.options(ADMIN), **{"group.id": "makes-the-topic"}))
    group.subscribe(["tailrace.alerts"])
    group.poll(5)
    group.close()
    for user in (OPS, APPLICATION, "owner", "sink"):
        assert (
            "__consumer_offsets" not in AdminClient(quiet(kafka.options(user))).list_topics(timeout=10).topics
        )


def test_a_service_does_not_join_another_s_group(kafka: LocalKafka) -> None:
    """Members of the drift service's group would take its partitions away from it."""
    for user in ("evaluator", APPLICATION, OPS):
        consumer = Consumer(quiet(kafka.options(user), **{"group.id": "tailrace.drift"}))
        consumer.subscribe(["tailrace.alerts"])
        error: Any = None
        for _ in range(20):
            message = consumer.poll(0.5)
            if message is not None and message.error() is not None:
                error = message.error()
                break
        consumer.close()
        assert error is not None
        assert error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def test_a_service_does_not_fence_another_s_producer(kafka: LocalKafka) -> None:
    """Whoever may take a producer's transactional id ends its transaction, and it with it."""
    name = "tailrace.rollout.0"
    rollout = Producer(quiet(kafka.options("rollout"), **{"transactional.id": name}))
    rollout.init_transactions(20)
    rollout.begin_transaction()
    rollout.produce("tailrace.rollouts", b"the true one")
    for user in ("scorer", APPLICATION, OPS, "owner"):
        with pytest.raises(KafkaException) as refused:
            Producer(quiet(kafka.options(user), **{"transactional.id": name})).init_transactions(20)
        assert refused.value.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    rollout.commit_transaction(20)


def test_a_restarted_broker_still_knows_its_users(kafka: LocalKafka) -> None:
    kafka.kill()
    kafka.start()
    assert _write(kafka.options(APPLICATION), LANE.requests) is None
    assert _write(kafka.options(APPLICATION), "tailrace.rollouts") is not None
    _refused({"bootstrap.servers": kafka.bootstrap})


def test_the_next_start_takes_back_what_is_not_granted_and_forgets_old_passwords(
    kafka: LocalKafka, home: Path
) -> None:
    """The last test here: the broker is another one afterwards."""
    extra = AclBinding(
        ResourceType.TOPIC,
        "tailrace.rollouts",
        ResourcePatternType.LITERAL,
        "User:scorer",
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    with AdminClient(quiet(kafka.options("owner"))) as owner:
        owner.create_acls([extra])[extra].result(20)
    assert _write(kafka.options("scorer"), "tailrace.rollouts") is None
    kafka.stop()
    before = kafka.options("scorer")["sasl.password"]
    credentials = Credentials(home)
    credentials.renew(KAFKA, "scorer")
    users = {user: credentials.make(KAFKA, user) for user in (ADMIN, *USERS)}
    again = LocalKafka(kafka.data, users=users)
    again.start()
    try:
        assert "uthentication failed" in _refused(client_options(again.bootstrap, "scorer", before))
        assert _write(again.options("scorer"), LANE.predictions) is None
        assert _write(again.options("scorer"), "tailrace.rollouts") is not None
    finally:
        again.stop()
