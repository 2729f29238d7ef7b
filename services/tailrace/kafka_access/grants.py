"""Who may do what at Kafka: a pure function of the table of services, and of the lanes that there are.

Kafka's patterns are names and prefixes, so rights on a lane's topics are granted topic by topic, when a lane is made.
Nothing is granted that is not here: the broker refuses what no grant allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tailrace.access.credentials import APPLICATION, OPS, OWNER
from tailrace.contracts.records import lanes
from tailrace.contracts.records.lanes import Lane
from tailrace.services import PUBLISHING, TABLE, ServiceEntry

ADMIN = "admin"
"""The broker's own super user: makes the other users, and what they may do. No client but the supervisor's."""

USERS = (*TABLE, OWNER, APPLICATION, OPS)
"""Every user but the broker's own."""

TOPIC, GROUP, TRANSACTIONAL_ID, CLUSTER = "TOPIC", "GROUP", "TRANSACTIONAL_ID", "BROKER"
READ, WRITE, DESCRIBE, CREATE, ALTER = "READ", "WRITE", "DESCRIBE", "CREATE", "ALTER"
DESCRIBE_CONFIGS, ALTER_CONFIGS, ALL = "DESCRIBE_CONFIGS", "ALTER_CONFIGS", "ALL"
ANY = "*"

OF_SERVICES, OF_OPS = "tailrace.*", "ops.*"
"""Consumer groups that are not the applications'."""

_UNGROUPED = "tailrace-*"
"""Named by readers that join no group: librdkafka looks for the coordinator of any group that it is given."""

_LANE = Lane("LANE")
_EVERYTHING = (*lanes.CONTROL_TOPICS, *_LANE.topics)
_ASKED_BY_PEOPLE = (_LANE.requests, _LANE.labels, _LANE.actions)


class Grant(NamedTuple):
    """One right: as Kafka's ACL.

    Attributes:
        resource: its type, as librdkafka names it (Kafka's cluster is its ``BROKER``).
        name: of the resource; one that ends in ``*`` is a prefix, and ``*`` alone is any.
        allowed: False takes away what another grant gives.
    """

    user: str
    operation: str
    resource: str
    name: str
    allowed: bool = True


def grants(lane_names: Iterable[str]) -> frozenset[Grant]:
    """Every right of every user, where there are these lanes."""
    general = {grant for grant in templates() if not _is_of_lane(grant)}
    return frozenset(general.union(*(lane_grants(lane) for lane in lane_names)))


def lane_grants(lane: str) -> frozenset[Grant]:
    """The rights on the topics of one lane."""
    return frozenset(
        grant._replace(name=f"{lane}{grant.name.removeprefix(_LANE.name)}")
        for grant in templates()
        if _is_of_lane(grant)
    )


def templates() -> Iterator[Grant]:
    """Every right, with ``LANE.suffix`` for the topics of any lane."""
    for user, entry in TABLE.items():
        yield from _of_service(user, entry)
    yield from _of_owner()
    yield from _of_application()
    yield from _of_ops()


def _is_of_lane(grant: Grant) -> bool:
    return grant.resource == TOPIC and grant.name.startswith(f"{_LANE.name}.")


def _of_service(user: str, entry: ServiceEntry) -> Iterator[Grant]:
    yield from _on(user, TOPIC, entry.reads, READ)
    yield from _on(user, TOPIC, entry.writes, WRITE)
    yield from _on(user, TOPIC, entry.measures, DESCRIBE)
    yield from _on(user, TOPIC, entry.makes, CREATE, DESCRIBE_CONFIGS)
    yield from _on(user, GROUP, entry.groups, READ)
    yield from _on(user, TRANSACTIONAL_ID, entry.transactional_ids, WRITE)
    yield Grant(user, DESCRIBE, GROUP, _UNGROUPED)


def _of_owner() -> Iterator[Grant]:
    """What the commands do. Lanes are made by them, and with a lane its grants: hence ALTER of the cluster, with which
    the owner could give itself whatever is missing here. Dead letters are sent again to wherever they came from."""
    yield from _on(OWNER, TOPIC, _EVERYTHING, READ, DESCRIBE_CONFIGS, ALTER_CONFIGS)
    written = (lanes.CONTRACTS, lanes.COMMANDS, lanes.MANIFESTS, lanes.CHUNKS, lanes.CLOCKS)
    resent = (topic for topic in _LANE.topics if topic != _LANE.dead_letters)
    yield from _on(OWNER, TOPIC, (*written, *resent), WRITE)
    yield from _on(OWNER, CLUSTER, ("kafka-cluster",), CREATE, ALTER, DESCRIBE)
    yield from _on(OWNER, GROUP, ("tailrace.replay.*",), READ)
    yield Grant(OWNER, DESCRIBE, GROUP, ANY)
    yield from _on(OWNER, TRANSACTIONAL_ID, (PUBLISHING,), WRITE)


def _of_application() -> Iterator[Grant]:
    read = (_LANE.predictions, _LANE.outcomes, _LANE.dead_letters, lanes.ALERTS, lanes.CONTRACTS)
    yield from _on(APPLICATION, TOPIC, read, READ)
    yield from _on(APPLICATION, TOPIC, _ASKED_BY_PEOPLE, WRITE)
    for resource, operation in ((GROUP, READ), (TRANSACTIONAL_ID, WRITE)):
        yield Grant(APPLICATION, operation, resource, ANY)
        for others in (OF_SERVICES, OF_OPS):
            yield Grant(APPLICATION, ALL, resource, others, allowed=False)
    yield Grant(APPLICATION, ALL, TRANSACTIONAL_ID, "tailrace-*", allowed=False)


def _of_ops() -> Iterator[Grant]:
    yield from _on(OPS, TOPIC, _EVERYTHING, READ, DESCRIBE_CONFIGS)
    yield from _on(OPS, GROUP, (OF_OPS,), READ)
    yield Grant(OPS, DESCRIBE, GROUP, ANY)
    yield Grant(OPS, DESCRIBE, TRANSACTIONAL_ID, ANY)
    yield Grant(OPS, DESCRIBE, CLUSTER, "kafka-cluster")


def _on(user: str, resource: str, names: Iterable[str], *operations: str) -> Iterator[Grant]:
    for name in names:
        for operation in operations:
            yield Grant(user, operation, resource, name)
