"""The table of services: what each is, which topics it reads and writes, under which names it does so at Kafka.

What starts services, what says in Kafka who may do what, compose.yaml and the documents are made from it or checked
against it. Topics of lanes are named ``LANE.suffix``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tailrace.contracts.records import lanes

_LANE = lanes.Lane("LANE")
PUBLISHING = "tailrace-publish-*"
"""Transactional ids under which packages are published, one a model."""


@dataclass(frozen=True)
class ServiceEntry:
    """One service.

    Attributes:
        module: whose ``main()`` it is.
        reads: topics that it consumes or follows.
        writes: topics that it writes to.
        measures: topics of which it asks only how far they go.
        groups: consumer groups that it joins.
        transactional_ids: of its transactions; one that ends in ``*`` is a prefix.
        makes: topics that it makes where they are missing.
    """

    module: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    transactional_ids: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()


def _on_batch_loop(
    name: str, module: str, reads: tuple[str, ...], writes: tuple[str, ...]
) -> tuple[str, ServiceEntry]:
    """A service on the exactly-once runner: its group and its instances' transactional ids bear its name."""
    group = f"tailrace.{name}"
    return name, ServiceEntry(module, reads, writes, groups=(group,), transactional_ids=(f"{group}.*",))


_PREDICTIONS = (_LANE.predictions, _LANE.shadow_predictions)
_WINDOWS = (lanes.WINDOW_PARTS, lanes.WINDOW_STATE)
_PACKAGES = (lanes.MANIFESTS, lanes.CHUNKS)
_SCORED_BY = (_LANE.requests, lanes.CONTRACTS, *_PACKAGES, lanes.ROLLOUTS, lanes.CLOCKS)

_ENTRIES: Mapping[str, ServiceEntry] = dict(
    [
        (
            "clock",
            ServiceEntry(
                "tailrace.clock.app",
                reads=(lanes.CONTRACTS, lanes.CLOCKS, _LANE.requests),
                writes=(lanes.CLOCKS, _LANE.requests, _LANE.labels, _LANE.actions),
                measures=(_LANE.labels, _LANE.actions),
            ),
        ),
        _on_batch_loop(
            "drift",
            "tailrace.drift.app",
            reads=(*_PREDICTIONS, *_WINDOWS, lanes.CONTRACTS, *_PACKAGES),
            writes=(lanes.DRIFT_REPORTS, lanes.ALERTS, *_WINDOWS, _LANE.dead_letters),
        ),
        _on_batch_loop(
            "evaluator",
            "tailrace.evaluator.app",
            reads=(*_PREDICTIONS, _LANE.outcomes, *_WINDOWS, lanes.CONTRACTS, lanes.MANIFESTS),
            writes=(lanes.PERFORMANCE_REPORTS, lanes.ALERTS, *_WINDOWS, _LANE.dead_letters),
        ),
        _on_batch_loop(
            "joiner",
            "tailrace.joiner.app",
            reads=(*_PREDICTIONS, _LANE.labels, _LANE.actions, _LANE.rekeyed, lanes.CONTRACTS),
            writes=(_LANE.outcomes, _LANE.rekeyed, _LANE.dead_letters, lanes.ALERTS),
        ),
        _on_batch_loop(
            "rollout",
            "tailrace.rollout.app",
            reads=(
                lanes.COMMANDS,
                *_PACKAGES,
                lanes.PERFORMANCE_REPORTS,
                lanes.DRIFT_REPORTS,
                lanes.TRAINING_RUNS,
                lanes.ALERTS,
                lanes.ROLLOUTS,
                lanes.CONTRACTS,
                lanes.CLOCKS,
            ),
            writes=(lanes.ROLLOUTS, lanes.ALERTS),
        ),
        _on_batch_loop(
            "scorer",
            "tailrace.scorer.app",
            reads=_SCORED_BY,
            writes=(_LANE.predictions, _LANE.dead_letters, lanes.ALERTS),
        ),
        _on_batch_loop(
            "shadow-scorer",
            "tailrace.scorer.shadow_app",
            reads=_SCORED_BY,
            writes=(_LANE.shadow_predictions, _LANE.dead_letters, lanes.ALERTS),
        ),
        (
            "sink",
            ServiceEntry(
                "tailrace.sink.app",
                reads=(
                    *(topic for topic in _LANE.topics if topic != _LANE.rekeyed),
                    *(t for t in lanes.CONTROL_TOPICS if t not in (lanes.CHUNKS, *_WINDOWS)),
                ),
                groups=("tailrace.sink",),
            ),
        ),
        (
            "trainer",
            ServiceEntry(
                "tailrace.trainer.app",
                reads=(
                    lanes.ALERTS,
                    lanes.PERFORMANCE_REPORTS,
                    lanes.DRIFT_REPORTS,
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
        ),
    ]
)

SCHEMAS = "_schemas"
"""The schema registry's log."""

REGISTRY = ServiceEntry(
    "tailrace.local.registry_server",
    reads=(SCHEMAS,),
    writes=(SCHEMAS,),
    transactional_ids=("tailrace-schema-registry",),
    makes=(SCHEMAS,),
)

SERVICES = tuple(_ENTRIES)
"""What ``tailrace up`` starts and keeps alive, in this order."""

TABLE: Mapping[str, ServiceEntry] = {**_ENTRIES, "registry": REGISTRY}
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
