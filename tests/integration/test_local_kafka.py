"""The local broker is a real Kafka: it comes up, survives a crash with its data, and refuses clearly."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from tests.support.simulation import LONG

from tailrace.errors import TailraceError
from tailrace.local.java import java, java_version
from tailrace.local.kafka import LocalKafka
from tailrace.local.ports import HOST, free_port
from tailrace.streaming.backends.kafka.clients import is_unknown, sending

KILLS = 5 if LONG else 2


def _create(bootstrap: str, partitions: int = 2) -> str:
    topic = f"t-{uuid.uuid4().hex[:8]}"
    client = AdminClient({"bootstrap.servers": bootstrap})
    client.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
    return topic


def _write(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(60)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    producer.commit_transaction(60)


def _read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
        }
    )
    partitions = consumer.list_topics(topic, 30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    values: list[bytes] = []
    while len(values) < count:
        values += [m.value() for m in consumer.consume(count - len(values), 30) if not m.error()]
    consumer.close()
    return values


def test_a_transaction_survives_a_killed_broker(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path / "kafka")
    broker.start()
    address = broker.bootstrap
    try:
        topic = _create(address)
        _write(address, topic, [b"before"])
        broker.kill()
        assert not broker.running()
        broker.start()
        assert broker.bootstrap == address
        _write(address, topic, [b"after"])
        assert sorted(_read(address, topic, 2)) == [b"after", b"before"]
    finally:
        broker.stop()


def test_a_sender_says_of_each_record_what_became_of_it_though_the_broker_is_killed(tmp_path: Path) -> None:
    """Whatever it says is delivered is there once; what it does not know may be there, once; and it comes to an end."""
    broker = LocalKafka(tmp_path / "kafka")
    broker.start()
    reported: dict[bytes, KafkaError | None] = {}
    stop = threading.Event()
    options = {"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "log_level": 0}
    sent = 0
    try:
        topic = _create(broker.bootstrap)
        with sending(options, patience_s=60) as sender:

            def send() -> None:
                nonlocal sent
                while not stop.wait(0.002):
                    value = b"%d" % sent
                    sender.produce(
                        topic, value, on_delivery=lambda e, _, value=value: reported.update({value: e})
                    )
                    sender.poll(0)
                    sent += 1

            sending_on = threading.Thread(target=send)
            sending_on.start()
            for _ in range(KILLS):
                time.sleep(1)
                broker.kill()
                time.sleep(1)
                broker.start()
            stop.set()
            sending_on.join()
            assert sender.flush(90) == 0
        assert len(reported) == sent
        delivered = {value for value, error in reported.items() if error is None}
        unknown = {value for value, error in reported.items() if error is not None and is_unknown(error)}
        assert delivered | unknown == set(reported)
        _write(broker.bootstrap, topic, [b"last"])
        stored = _read_until(broker.bootstrap, topic, b"last")
        assert len(stored) == len(set(stored)), "a record twice"
        assert delivered <= set(stored) <= delivered | unknown
        assert len(delivered) > sent / 2
        print(f"{sent:,} sent, {len(unknown):,} unknown")
    finally:
        stop.set()
        broker.stop()


def test_a_broker_that_stood_still_for_longer_than_its_session_takes_every_record(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path / "kafka")
    broker.start()
    assert broker.pid is not None
    reports: list[KafkaError | None] = []
    try:
        topic = _create(broker.bootstrap)
        producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
        values = [b"%d" % number for number in range(300)]
        for number, value in enumerate(values):
            if number == 100:
                os.kill(broker.pid, signal.SIGSTOP)
            producer.produce(topic, value, on_delivery=lambda error, _: reports.append(error))
            producer.poll(0.01)
        time.sleep(2)  # beside the two seconds that sending has taken
        os.kill(broker.pid, signal.SIGCONT)
        went_on = time.monotonic()
        assert producer.flush(60) == 0
        print(f"the last was acknowledged {time.monotonic() - went_on:.2f} s after the broker went on")
        assert reports == [None] * len(values)
        assert sorted(_read(broker.bootstrap, topic, len(values))) == sorted(values)
    finally:
        os.kill(broker.pid, signal.SIGCONT)
        broker.stop()


def _read_until(bootstrap: str, topic: str, last: bytes) -> list[bytes]:
    options = {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    values: list[bytes] = []
    with Consumer(options) as consumer:
        number = len(consumer.list_topics(topic, 30).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, at, OFFSET_BEGINNING) for at in range(number)])
        quiet = 0
        while quiet < 3:
            batch = [m.value() for m in consumer.consume(10_000, 1.0) if not m.error()]
            quiet = 0 if batch or last not in values + batch else quiet + 1
            values += batch
    return [value for value in values if value != last]


def test_the_settings_that_services_rely_on(kafka: LocalKafka) -> None:
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    topic = _create(kafka.bootstrap)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    config = client.describe_configs([resource])[resource].result(30)
    assert config["message.timestamp.type"].value == "LogAppendTime"
    assert int(config["max.message.bytes"].value) >= 4 * 1024 * 1024
    with pytest.raises(KeyError):
        client.list_topics(topic="nobody-made-this", timeout=10).topics["another"]
    assert "nobody-made-this" not in client.list_topics(timeout=10).topics


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:
        port = free_port()
        other.bind((HOST, port))
        other.listen()
        with pytest.raises(TailraceError, match=f"port {port} for Kafka is taken"):
            LocalKafka(tmp_path / "kafka", port=port).start()


def test_a_data_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TailraceError, match="cannot be written"):
        LocalKafka(tmp_path / "file" / "kafka").start()


def test_kafka_home_without_a_kafka_is_said(tmp_path: Path) -> None:
    with pytest.raises(TailraceError, match="KAFKA_HOME"):
        LocalKafka(tmp_path / "kafka", env=os.environ | {"KAFKA_HOME": str(tmp_path)}).start()


def test_an_installed_kafka_is_used(tmp_path: Path, kafka: LocalKafka) -> None:
    """KAFKA_HOME with the layout of an unpacked distribution, made of the jars that the other broker runs."""
    from tailrace.local.java import jars
    from tailrace.local.kafka import LOCK

    libs = tmp_path / "dist" / "libs"
    libs.mkdir(parents=True)
    for jar in jars(LOCK):
        # Distributions name a jar by its artifact alone: kafka_2.13-4.1.1.jar.
        (libs / jar.name.removeprefix("org.apache.kafka-")).symlink_to(jar)
    broker = LocalKafka(tmp_path / "kafka", env=os.environ | {"KAFKA_HOME": str(tmp_path / "dist")})
    broker.start()
    try:
        assert broker.pid is not None
        command = psutil.Process(broker.pid).cmdline()
        assert command[command.index("-cp") + 1] == f"{libs}/*"
        _create(broker.bootstrap)
    finally:
        broker.stop()


def test_a_start_uses_what_the_first_one_on_this_machine_prepared(kafka: LocalKafka) -> None:
    assert kafka.pid is not None
    options = [one for one in psutil.Process(kafka.pid).cmdline() if one.startswith("-XX:AOTCache=")]
    if (java_version(java().parents[1]) or 0) >= 25:
        assert Path(options[0].partition("=")[2]).stat().st_size > 0
    else:
        assert not options
