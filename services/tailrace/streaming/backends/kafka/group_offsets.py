"""How far a consumer group has come, and what its topics still hold, asked from outside the group."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, OffsetSpec

from tailrace.connection import Connection
from tailrace.errors import Unavailable
from tailrace.streaming.backends.abstract import LogError
from tailrace.streaming.backends.kafka.reading import ask_offsets
from tailrace.streaming.records import TopicPartition

_TIMEOUT_S = 10.0


class GroupProgress(NamedTuple):
    """
    Attributes:
        earliest: the first offset that the partition still holds.
        committed: the next offset that the group reads.
    """

    earliest: int
    committed: int


def progress_of(connection: Connection, group: str) -> dict[TopicPartition, GroupProgress]:
    """By partition of which the group has committed something, and which still exists.

    Raises:
        Unavailable: Kafka does not answer.
    """
    try:
        with AdminClient({**connection.kafka, "log_level": 0}) as admin:
            asked = [ConsumerGroupTopicPartitions(group)]
            answers = admin.list_consumer_group_offsets(asked, request_timeout=_TIMEOUT_S)
            try:
                places = answers[group].result().topic_partitions or []
            except KafkaException as error:
                if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                    raise
                places = []
            known = admin.list_topics(timeout=_TIMEOUT_S).topics
            committed = {
                TopicPartition(place.topic, place.partition): place.offset
                for place in places
                if place.offset >= 0
                and place.topic in known
                and place.partition in known[place.topic].partitions
            }
            earliest = ask_offsets(admin, list(committed), OffsetSpec.earliest())  # type: ignore[no-untyped-call]
    except (KafkaException, LogError) as error:
        raise Unavailable(f"Kafka does not say how far group {group} has come: {error}") from error
    return {tp: GroupProgress(earliest[tp].offset, offset) for tp, offset in committed.items()}


def stored_by(connection: Connection, group: str) -> Callable[[str], bool]:
    """Says of a topic whether the group has worked off any of it. Kafka is asked at the first question."""

    @cache
    def topics() -> set[str]:
        progress = progress_of(connection, group)
        return {tp.topic for tp, (earliest, committed) in progress.items() if committed > earliest}

    return lambda topic: topic in topics()
