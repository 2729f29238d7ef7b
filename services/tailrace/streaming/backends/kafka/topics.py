"""Topics as contracts/topics says, created where they are missing and compared where they are there.

All topics have LogAppendTime: with the producer's time, retention would delete records of 1996 within seconds.
Compaction keeps only a key's last record; where the history matters, a topic is kept for ever instead.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tailrace.connection import home_dir, running_addresses
from tailrace.errors import Unavailable, UsageError
from tailrace.package_data import data_dir
from tailrace.streaming.backends.kafka.errors import asking

LANE = "LANE."
LANE_PARTITIONS = "TAILRACE_LANE_PARTITIONS"
_DEFAULT_LANE_PARTITIONS = 32
_MOST_REPLICAS = 3
_DAY_MS = 86_400_000
_FOREVER = -1
_TIMEOUT = 15.0
_MAKING = 60.0
"""Seconds in which a cluster that makes many topics has to have made one more."""
_AT_ONCE = 2_000
"""Partitions made by one request: Kafka's controller writes at most 10,000 records for one, two or so for each."""


@dataclass(frozen=True)
class Topic:
    """A topic: what is on it and how it is kept.

    Attributes:
        name: its name; in a lane's topic file it begins with ``LANE.``.
        value: the record's schema; ``bytes`` and ``original`` where there is none.
        partitions: how many; a lane's is decided by `lane_topics`.
        retention_ms: -1 for ever.
        keep: the field of a contract's ``keep`` that decides retention, or None.
        max_message_bytes: of a record batch, as Kafka counts.
    """

    name: str
    about: str
    owner: str
    key: str
    value: str
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]
    partitions: int
    cleanup: Literal["delete", "compact"]
    retention_ms: int
    keep: str | None
    max_message_bytes: int

    @property
    def lane(self) -> str | None:
        """The lane that it belongs to, None for a control topic."""
        return None if self.name.startswith("tailrace.") else self.name.rpartition(".")[0]

    def config(self) -> dict[str, str]:
        """Kafka's settings of this topic."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime",
        }


class Difference(NamedTuple):
    """A topic is not as it should be: ``setting`` is ``partitions`` or one of Kafka's topic settings."""

    topic: str
    setting: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.found}, {self.wanted} is expected"


@cache
def topic_files() -> Mapping[str, Topic]:
    """The topics as described in contracts/topics, by name; those of lanes begin with ``LANE.``."""
    files = sorted(data_dir("contracts", "topics").glob("*.yaml"))
    return {topic.name: topic for topic in map(_read, files)}


def control_topics() -> list[Topic]:
    """The product's own topics."""
    return [topic for name, topic in topic_files().items() if not name.startswith(LANE)]


def lane_topics(
    lane: str, keep_ms: Mapping[str, int] | None = None, partitions: int | None = None
) -> list[Topic]:
    """The topics of a lane.

    Args:
        lane: its name.
        keep_ms: retention in milliseconds by the name of the contract's ``keep`` field; the rest has its default.
        partitions: how many each has; by default ``TAILRACE_LANE_PARTITIONS``, or 32. It cannot change later.
    """
    count = _lane_partitions() if partitions is None else partitions
    keep = keep_ms or {}
    return [
        replace(
            topic,
            name=f"{lane}.{name.removeprefix(LANE)}",
            partitions=count,
            retention_ms=keep.get(topic.keep or "", topic.retention_ms),
        )
        for name, topic in topic_files().items()
        if name.startswith(LANE)
    ]


def topics_read_by(reader: str) -> frozenset[str]:
    """Names (``LANE.suffix`` for those of lanes) of the topics that this service reads."""
    return frozenset(name for name, topic in topic_files().items() if reader in topic.read_by)


def ensure_topics(
    kafka: Mapping[str, str], topics: Sequence[Topic], timeout: float = _TIMEOUT
) -> list[Difference]:
    """Creates the topics that are missing; says where those that are there differ. Changes nothing of them.

    A missing topic of a lane takes the number of partitions that the lane's other topics have, since records of one key
    must meet; where that is not the number asked for, it is among the differences. There are as many replicas as there
    are brokers, at most three, and all but one of them must have a record before it counts as written.

    Args:
        kafka: librdkafka options, ``bootstrap.servers`` among them.
        timeout: seconds that the cluster has to answer at all.

    Raises:
        Unavailable: the cluster cannot be reached.
        TailraceError: it refuses (rights, policies).
    """
    with asking(), _admin(kafka) as admin:
        counts = _partitions(admin, timeout)
        missing = [
            replace(topic, partitions=_lane_has(topic, counts) or topic.partitions)
            for topic in topics
            if topic.name not in counts
        ]
        if missing:
            _create(admin, missing)
            counts = _wait_for([topic.name for topic in missing], admin)
        configs = _configs(admin, [topic.name for topic in topics])
    return [difference for topic in topics for difference in _compare(topic, counts, configs[topic.name])]


def align_topics(kafka: Mapping[str, str], differences: Sequence[Difference]) -> list[Difference]:
    """Sets what can be set on a topic that is there, and gives back what cannot: the number of partitions.

    More partitions would send the keys elsewhere, away from their history.
    """
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    resources: dict[str, Any] = {}
    for topic, setting, wanted, _ in differences:
        if setting != "partitions":
            resource = resources.setdefault(topic, ConfigResource(ResourceType.TOPIC, topic))
            entry = ConfigEntry(setting, wanted, incremental_operation=AlterConfigOpType.SET)
            resource.add_incremental_config(entry)
    if resources:
        with asking(), _admin(kafka) as admin:  # must outlive its futures
            for done in admin.incremental_alter_configs(list(resources.values())).values():
                done.result(_TIMEOUT)
    return [difference for difference in differences if difference.setting == "partitions"]


def _lane_partitions() -> int:
    # What `tailrace up` runs here says its own number, since this machine is smaller than a cluster.
    here = running_addresses(home_dir())
    text = os.environ.get(LANE_PARTITIONS) or here.get(LANE_PARTITIONS) or str(_DEFAULT_LANE_PARTITIONS)
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise UsageError(f"{LANE_PARTITIONS} is {text!r}: set it to a number of partitions, such as 32")
    return int(text)


def _read(path: Path) -> Topic:
    from ruamel.yaml import YAML

    fields = dict(YAML(typ="safe").load(path.read_text()))
    retention = fields.pop("retention")
    return Topic(
        name=fields.pop("topic"),
        partitions=0 if (count := fields.pop("partitions")) == "lane" else int(count),
        retention_ms=_FOREVER if retention == "forever" else int(retention.removesuffix("d")) * _DAY_MS,
        max_message_bytes=int(fields.pop("max_message").removesuffix("MiB")) * 1024 * 1024,
        written_by=tuple(fields.pop("written_by")),
        read_by=tuple(fields.pop("read_by")),
        keep=fields.pop("keep", None),
        **fields,
    )


def _admin(kafka: Mapping[str, str]) -> Any:
    from confluent_kafka.admin import AdminClient

    # What goes wrong is raised; librdkafka need not print it as well.
    return AdminClient({"log_level": 0, **kafka})


def _partitions(admin: Any, timeout: float = _TIMEOUT) -> dict[str, int]:
    topics = admin.list_topics(timeout=timeout).topics
    return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}


def _lane_has(topic: Topic, counts: Mapping[str, int]) -> int | None:
    suffixes = (name.removeprefix(LANE) for name in topic_files() if topic.lane and name.startswith(LANE))
    return next((counts[name] for s in suffixes if (name := f"{topic.lane}.{s}") in counts), None)


def _create(admin: Any, topics: Sequence[Topic]) -> None:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    replicas = min(_MOST_REPLICAS, len(admin.list_topics(timeout=_TIMEOUT).brokers))
    in_sync = {"min.insync.replicas": str(max(1, replicas - 1))}
    new = [NewTopic(t.name, t.partitions, replicas, config=t.config() | in_sync) for t in topics]
    while new:
        count = bisect_right(list(accumulate(topic.num_partitions for topic in new)), _AT_ONCE) or 1
        for done in admin.create_topics(new[:count], operation_timeout=_TIMEOUT).values():
            try:
                done.result(_TIMEOUT)
            except KafkaException as error:
                # Somebody else who saw it missing was quicker.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        new = new[count:]


def _wait_for(names: Sequence[str], admin: Any) -> dict[str, int]:
    # The controller has them; the broker that answers may hear of it a moment later, of many one after the other.
    wanted, missing, deadline = set(names), len(names), time.monotonic() + _MAKING
    pause = 0.05
    while not (counts := _partitions(admin)).keys() >= wanted:
        if len(wanted - counts.keys()) < missing:
            missing, deadline = len(wanted - counts.keys()), time.monotonic() + _MAKING
        if time.monotonic() > deadline:
            first = ", ".join(sorted(wanted - counts.keys())[:3])
            raise Unavailable(f"Kafka has not made {missing} topics ({first} ...) within {_MAKING:.0f} s")
        time.sleep(pause)
        # To list thousands of partitions costs the broker, which is busy making them.
        pause = min(2 * pause, 1.0)
    return counts


def _configs(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    from confluent_kafka.admin import ConfigResource, ResourceType

    if not names:
        return {}
    described = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names])
    return {
        resource.name: {name: entry.value for name, entry in done.result(_TIMEOUT).items()}
        for resource, done in described.items()
    }


def _compare(topic: Topic, counts: Mapping[str, int], config: Mapping[str, str]) -> list[Difference]:
    wanted = {"partitions": str(topic.partitions), **topic.config()}
    settings = {"partitions": str(counts[topic.name]), **config}
    return [
        Difference(topic.name, setting, value, settings.get(setting, "not set"))
        for setting, value in wanted.items()
        if settings.get(setting) != value
    ]
