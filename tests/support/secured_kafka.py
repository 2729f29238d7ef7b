"""A broker with users for tests of what they may do, with one lane, and a record in every topic."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tailrace.access.credentials import KAFKA, Credentials
from tailrace.contracts.records.lanes import CONTROL_TOPICS, Lane
from tailrace.kafka_access.acls import grant_lanes
from tailrace.kafka_access.grants import ADMIN, USERS
from tailrace.local.kafka import LocalKafka
from tailrace.services import SCHEMAS

LANE = Lane("shop")
FOREIGN = "somebody-elses"
"""A topic that no grant names."""

TOPICS = (*CONTROL_TOPICS, *LANE.topics, SCHEMAS, FOREIGN)


@contextmanager
def secured_kafka(home: Path) -> Iterator[LocalKafka]:
    """Its data is in ``home``/kafka, its passwords where a home has them. The owner grants the lane, as by apply."""
    credentials = Credentials(home)
    kafka = LocalKafka(
        home / "kafka", users={user: credentials.make(KAFKA, user) for user in (ADMIN, *USERS)}
    )
    kafka.start()
    try:
        assert grant_lanes(kafka.options("owner"), [LANE.name])
        _fill(kafka.options(ADMIN))
        yield kafka
    finally:
        kafka.stop()


def _fill(admin: dict[str, str]) -> None:
    client = AdminClient(dict(admin))
    for made in client.create_topics([NewTopic(topic, 1, 1) for topic in TOPICS]).values():
        made.result(30)
    producer = Producer({**admin, "transactional.id": secrets.token_hex(4)})
    producer.init_transactions(30)
    producer.begin_transaction()
    for topic in TOPICS:
        producer.produce(topic, b"first")
    producer.commit_transaction(30)


def quiet(options: dict[str, str], **more: Any) -> dict[str, Any]:
    """Options of a client whose refusals a test counts: librdkafka need not print them as well."""
    return {**options, "log_level": 0, "reconnect.backoff.max.ms": 200, **more}
