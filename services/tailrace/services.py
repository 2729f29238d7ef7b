"""The table of services: what each is, which topics it reads and writes, under which names it does so at Kafka.

What starts services and what says in Kafka who may do what read it; ``make pages`` puts it into
compose.yaml, topic files and documents (tools/service_files.py). Topics of lanes are named ``LANE.suffix``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tailrace.contracts.records import lanes

_LANE = lanes.Lane("LANE")
PUBLISHING = "tailrace-publish-*"
"""Transactional ids under which packages are published, one a model."""


@dataclass(frozen=True)
class ServiceEntry:
    """One service.

    Attributes:
        name: also its user's at Kafka, its container's and its signer's.
        module: whose ``main()`` it is.
        state: what it keeps, for docs/architecture.md.
        reads: topics that it consumes or follows.
        writes: topics that it writes to.
        measures: topics of which it asks only how far they go.
        groups: consumer groups that it joins.
        transactional_ids: of its transactions; one that ends in ``*`` is a prefix.
        makes: topics that it makes where they are missing.
        keeps_files: it has a folder of its own in the home, beside its cache.
    """

    name: str
    module: str
    state: str = "none"
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    transactional_ids: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    keeps_files: bool = False

    @property
    def folder(self) -> str:
        """The room that it is in."""
        return self.module.split(".")[1]


def _exactly_once(name: str, module: str, state: str, **fields: Any) -> ServiceEntry:
    """A service on the exactly-once runner: its group and its instances' transactional ids bear its name."""
    group = f"tailrace.{name}"
    return ServiceEntry(name, module, state, groups=(group,), transactional_ids=(f"{group}.*",), **fields)


_PREDICTIONS = (_LANE.predictions, _LANE.shadow_predictions)
_WINDOWS = (lanes.WINDOW_PARTS, lanes.WINDOW_STATE)
_PACKAGES = (lanes.MANIFESTS, lanes.CHUNKS)
_REPORTS = (lanes.PERFORMANCE_REPORTS, lanes.DRIFT_REPORTS)
_IN_FORCE = (lanes.ROLLOUTS, lanes.CONTRACTS, lanes.CLOCKS)
_SCORED_BY = (_LANE.requests, lanes.CONTRACTS, *_PACKAGES, lanes.ROLLOUTS, lanes.CLOCKS)

ENTRIES: tuple[ServiceEntry, ...] = (
    ServiceEntry(
        "clock",
        "tailrace.clock.app",
        "none; what it writes into lanes are watermark records, where partitions are silent",
        reads=(lanes.CONTRACTS, lanes.CLOCKS, _LANE.requests),
        writes=(lanes.CLOCKS, _LANE.requests, _LANE.labels, _LANE.actions),
        measures=(_LANE.labels, _LANE.actions),
    ),
    _exactly_once(
        "drift",
        "tailrace.drift.app",
        "open windows, from window-parts",
        reads=(*_PREDICTIONS, *_WINDOWS, lanes.CONTRACTS, *_PACKAGES),
        writes=(lanes.DRIFT_REPORTS, lanes.ALERTS, *_WINDOWS, _LANE.dead_letters),
    ),
    _exactly_once(
        "evaluator",
        "tailrace.evaluator.app",
        "open windows, from window-parts",
        reads=(*_PREDICTIONS, _LANE.outcomes, *_WINDOWS, lanes.CONTRACTS, lanes.MANIFESTS),
        writes=(lanes.PERFORMANCE_REPORTS, lanes.ALERTS, *_WINDOWS, _LANE.dead_letters),
    ),
    _exactly_once(
        "joiner",
        "tailrace.joiner.app",
        "requests within their horizon, in RocksDB for each partition; the inputs are the changelog",
        reads=(*_PREDICTIONS, _LANE.labels, _LANE.actions, _LANE.rekeyed, lanes.CONTRACTS),
        writes=(_LANE.outcomes, _LANE.rekeyed, _LANE.dead_letters, lanes.ALERTS),
        keeps_files=True,
    ),
    _exactly_once(
        "rollout",
        "tailrace.rollout.app",
        "the fold of its own topic",
        reads=(lanes.COMMANDS, *_PACKAGES, *_REPORTS, lanes.TRAINING_RUNS, lanes.ALERTS, *_IN_FORCE),
        writes=(lanes.ROLLOUTS, lanes.ALERTS, lanes.CONTRACTS),
    ),
    _exactly_once(
        "scorer",
        "tailrace.scorer.app",
        "models and rollouts, in memory",
        reads=_SCORED_BY,
        writes=(_LANE.predictions, _LANE.dead_letters, lanes.ALERTS),
    ),
    _exactly_once(
        "shadow-scorer",
        "tailrace.scorer.shadow_app",
        "the scorer's, in a group of its own",
        reads=_SCORED_BY,
        writes=(_LANE.shadow_predictions, _LANE.dead_letters, lanes.ALERTS),
    ),
    ServiceEntry(
        "sink",
        "tailrace.sink.app",
        "none; rows go to ClickHouse",
        reads=(
            *(topic for topic in _LANE.topics if topic != _LANE.rekeyed),
            *(t for t in lanes.CONTROL_TOPICS if t not in (lanes.CHUNKS, *_WINDOWS)),
        ),
        writes=(lanes.ALERTS,),
        groups=("tailrace.sink",),
    ),
    ServiceEntry(
        "trainer",
        "tailrace.trainer.app",
        "the fold of what it reads, from the start",
        reads=(
            lanes.ALERTS,
            *_REPORTS,
            lanes.COMMANDS,
            lanes.CONTRACTS,
            lanes.ROLLOUTS,
            lanes.TRAINING_RUNS,
            *_PACKAGES,
            _LANE.outcomes,
        ),
        writes=(lanes.TRAINING_RUNS, lanes.ALERTS, *_PACKAGES),
        groups=("tailrace.trainer",),
        transactional_ids=("tailrace.trainer", PUBLISHING),
    ),
)

SCHEMAS = "_schemas"
"""The schema registry's log."""

REGISTRY = ServiceEntry(
    "registry",
    "tailrace.local.registry_server",
    reads=(SCHEMAS,),
    writes=(SCHEMAS,),
    transactional_ids=("tailrace-schema-registry",),
    makes=(SCHEMAS,),
)

SERVICES = tuple(entry.name for entry in ENTRIES)
"""What ``tailrace up`` starts and keeps alive, in this order."""

TABLE: Mapping[str, ServiceEntry] = {entry.name: entry for entry in (*ENTRIES, REGISTRY)}
"""By the name that is also the Kafka user's; what has no user of its own at Kafka is not in it."""

(SINK_GROUP,) = TABLE["sink"].groups
"""The consumer group whose committed offsets say what ClickHouse holds."""

PROGRAMS: Mapping[str, str] = {
    **{name: entry.module for name, entry in TABLE.items()},
    "clickhouse": "tailrace.local.clickhouse_bridge",
    "init": "tailrace.cli.initialise",
    "kafka-users": "tailrace.local.kafka_users",
}
"""The module whose ``main()`` each is, by the names that ``tailrace run NAME`` takes."""
