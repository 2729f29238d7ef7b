"""What each of Kafka's users may, it can; what it may not, the broker refuses: every cell of docs/kafka-users.md.

Tried by real clients on a real broker: each user on every topic, group and transactional id, and on the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from tests.support.secured_kafka import FOREIGN, LANE, TOPICS, quiet, secured_kafka

from tailrace.kafka_access.grants import CLUSTER, GROUP, TOPIC, TRANSACTIONAL_ID, USERS, grants
from tailrace.local.kafka import LocalKafka
from tailrace.local.kafka_security import set_passwords
from tailrace.services import TABLE

GROUPS = (
    *(group for entry in TABLE.values() for group in entry.groups),
    *("tailrace.replay.shop", "ops.board", "shop-app"),
)
TRANSACTIONAL_IDS = (
    *(f"tailrace.{name}.0" for name in TABLE if f"tailrace.{name}.*" in TABLE[name].transactional_ids),
    *("tailrace.trainer", "tailrace-publish-shop", "tailrace-schema-registry", "shop-app"),
)
_TIMEOUT = 20.0
_LONGER = 10
"""Tenths of a second that a test looks on for what should not come."""


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    with secured_kafka(tmp_path_factory.mktemp("home")) as broker:
        yield broker


def _may(user: str, operation: str, resource: str, name: str) -> bool:
    """By the rules of Kafka: what is denied is not allowed, whatever else is."""
    meant = [
        grant
        for grant in grants([LANE.name])
        if grant.user == user and grant.resource == resource and grant.operation in (operation, "ALL")
        if name == grant.name or (grant.name.endswith("*") and name.startswith(grant.name.removesuffix("*")))
    ]
    return bool(meant) and all(grant.allowed for grant in meant)


def _is_refusal(error: KafkaError) -> bool:
    return bool(error.name().endswith("AUTHORIZATION_FAILED"))


def _allowed(attempt: Callable[[], object]) -> bool:
    """Whether the broker let it through; any other failure is the test's."""
    try:
        attempt()
    except KafkaException as failed:
        if _is_refusal(failed.args[0]):
            return False
        raise
    return True


@pytest.mark.parametrize("user", USERS)
def test_writing(kafka: LocalKafka, user: str) -> None:
    outcome: dict[str, KafkaError | None] = {}

    def delivered(error: KafkaError | None, message: Any) -> None:
        outcome[message.topic()] = error

    producer = Producer(quiet(kafka.options(user), **{"message.timeout.ms": 20_000}))
    for topic in TOPICS:
        producer.produce(topic, b"tried", on_delivery=delivered)
    assert producer.flush(30) == 0
    refused = {topic for topic, error in outcome.items() if error is not None and _is_refusal(error)}
    written = {topic for topic, error in outcome.items() if error is None}
    assert written == {topic for topic in TOPICS if _may(user, "WRITE", TOPIC, topic)}
    assert refused == set(TOPICS) - written


@pytest.mark.parametrize("user", USERS)
def test_reading(kafka: LocalKafka, user: str) -> None:
    able = {topic for topic in TOPICS if _may(user, "READ", TOPIC, topic)}
    consumer = Consumer(
        quiet(kafka.options(user), **{"group.id": "tailrace-test", "enable.auto.commit": False})
    )
    consumer.assign([TopicPartition(topic, 0, 0) for topic in TOPICS])
    read: set[str | None] = set()
    deadline = time.monotonic() + _TIMEOUT
    longer = 0
    while longer < _LONGER:  # what is not allowed would have come together with what is
        assert time.monotonic() < deadline, able - read
        message = consumer.poll(0.1)
        longer += read >= able
        if message is not None and (error := message.error()) is not None:
            assert _is_refusal(error), error
        elif message is not None:
            read.add(message.topic())
    consumer.close()
    assert read == able


@pytest.mark.parametrize("user", USERS)
def test_what_a_user_may_neither_read_nor_write_it_does_not_see(kafka: LocalKafka, user: str) -> None:
    admin = AdminClient(quiet(kafka.options(user)))
    listed = admin.list_topics(timeout=_TIMEOUT).topics
    seen = {
        topic
        for topic in TOPICS
        if any(_may(user, operation, TOPIC, topic) for operation in ("READ", "WRITE", "DESCRIBE"))
    }
    assert seen == set(TOPICS) & set(listed)
    for topic in set(TOPICS) - seen:
        asked = admin.list_topics(topic, timeout=_TIMEOUT).topics[topic]
        assert asked.error is not None
        assert _is_refusal(asked.error)


@pytest.mark.parametrize("user", USERS)
def test_groups(kafka: LocalKafka, user: str) -> None:
    """Setting a group's offsets takes the right to be a member of it, and to read the topic."""
    admin = AdminClient(quiet(kafka.options(user)))
    topic = next((topic for topic in TOPICS if _may(user, "READ", TOPIC, topic)), FOREIGN)

    def set_back(group: str) -> None:
        place = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 0)])
        answer = admin.alter_consumer_group_offsets([place])[group].result(_TIMEOUT)
        if answer.topic_partitions[0].error is not None:
            raise KafkaException(answer.topic_partitions[0].error)

    able = {group for group in GROUPS if _allowed(partial(set_back, group))}
    assert able == {group for group in GROUPS if _may(user, "READ", GROUP, group)}


@pytest.mark.parametrize("user", USERS)
def test_transactional_ids(kafka: LocalKafka, user: str) -> None:
    def take(name: str) -> None:
        Producer(quiet(kafka.options(user), **{"transactional.id": name})).init_transactions(_TIMEOUT)

    able = {name for name in TRANSACTIONAL_IDS if _allowed(partial(take, name))}
    assert able == {name for name in TRANSACTIONAL_IDS if _may(user, "WRITE", TRANSACTIONAL_ID, name)}


@pytest.mark.parametrize("user", USERS)
def test_the_cluster_and_settings(kafka: LocalKafka, user: str) -> None:
    options = quiet(kafka.options(user))
    admin = AdminClient(options)

    def make() -> None:
        admin.create_topics([NewTopic(f"made-by-{user}", 1, 1)], validate_only=True)[
            f"made-by-{user}"
        ].result(_TIMEOUT)

    def grant() -> None:
        everything = AclBinding(
            ResourceType.TOPIC,
            "never-there",
            ResourcePatternType.LITERAL,
            "User:nobody",
            "*",
            AclOperation.ALL,
            AclPermissionType.ALLOW,
        )
        admin.create_acls([everything])[everything].result(_TIMEOUT)

    def look(topic: str) -> None:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        admin.describe_configs([resource])[resource].result(_TIMEOUT)

    def another_s_password() -> None:
        set_passwords(options, {"nobody": "new"})

    may = partial(_may, user)
    assert _allowed(make) == may("CREATE", CLUSTER, "kafka-cluster")
    assert _allowed(grant) == may("ALTER", CLUSTER, "kafka-cluster")
    assert _allowed(another_s_password) == may("ALTER", CLUSTER, "kafka-cluster")
    able = {topic for topic in TOPICS if _allowed(partial(look, topic))}
    assert able == {topic for topic in TOPICS if may("DESCRIBE_CONFIGS", TOPIC, topic)}


@pytest.mark.parametrize("user", USERS)
def test_nobody_deletes(kafka: LocalKafka, user: str) -> None:
    admin = AdminClient(quiet(kafka.options(user)))
    for topic in (LANE.requests, "tailrace.contracts"):
        assert not _allowed(partial(admin.delete_topics([topic])[topic].result, _TIMEOUT))
        place = TopicPartition(topic, 0, 1)
        with pytest.raises(KafkaException) as refused:
            admin.delete_records([place])[place].result(_TIMEOUT)
        error = refused.value.args[0]
        # Who may not even see the topic is not told who leads it.
        assert _is_refusal(error) or error.code() == KafkaError._NOENT
