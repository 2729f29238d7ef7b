"""Alerts of dead letters: of a partition's requests more became dead letters than the contract bears.

Judged by every 1,000 requests of a partition, in the order of the log. So whoever reads requests and dead letters again
comes to the same, at whatever speed, however often owners change; and it says so in a replay too. What is counted so
far goes with the committed offset to the next owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tailrace.alerts.alert import open_alert_record
from tailrace.alerts.open_alerts import OpenAlerts, raise_or_renew
from tailrace.avro.columns.decoder import Ints, Mask
from tailrace.contracts.records.record_types import AlertRecord
from tailrace.scorer.batch import Batch
from tailrace.scorer.plans import DeadLetterLevel
from tailrace.statistics.binomial import is_more
from tailrace.streaming.ids import record_id
from tailrace.streaming.records import PausedPartition, RecordRef, TopicPartition

KIND = "dead-letter-share"
REQUESTS = 1_000
"""After so many a partition is judged."""


@dataclass(frozen=True)
class DeadLetterCount:
    """Of the requests since the last judgement: how many there were, how many are dead letters, the first one's offset.

    ``open`` holds the alert, where one is open (see alerts/open_alerts.py).
    """

    asked: int = 0
    dead: int = 0
    first: int = -1
    open: OpenAlerts = field(default_factory=dict)

    def to_json(self) -> list[Any]:
        return [self.asked, self.dead, self.first, self.open]


def count(
    before: DeadLetterCount,
    level: DeadLetterLevel,
    partition: TopicPartition,
    offsets: Ints,
    appended: Ints,
    dead: Mask,
) -> tuple[DeadLetterCount, list[AlertRecord]]:
    """The count after some requests, and what there is to be told (schema ``alert.avsc``).

    Args:
        offsets, appended: where each request is, in order, and when it was appended (ms).
        dead: whether it became a dead letter.
    """
    now, alerts, at = before, [], 0
    while at < len(offsets):
        upto = min(at + REQUESTS - now.asked, len(offsets))
        first = int(offsets[at]) if now.first < 0 else now.first
        now = DeadLetterCount(now.asked + upto - at, now.dead + int(dead[at:upto].sum()), first, now.open)
        if now.asked == REQUESTS:
            still_open = dict(now.open)
            last, when = int(offsets[upto - 1]), int(appended[upto - 1])
            alerts += _judge(now, level, partition, last, when, still_open)
            now = DeadLetterCount(open=still_open)
        at = upto
    return now, alerts


def _judge(
    found: DeadLetterCount,
    level: DeadLetterLevel,
    partition: TopicPartition,
    last: int,
    at: int,
    open_alerts: OpenAlerts,
) -> list[AlertRecord]:
    where = f"{partition.topic}/{partition.partition}"
    record = partial(
        open_alert_record,
        KIND,
        service="scorer",
        model=level.contract.model,
        detail={
            "found": str(found.dead),
            "requests": str(found.asked),
            "level": repr(level.most),
            "first": f"{where}/{found.first}",
        },
        source=RecordRef(partition.topic, partition.partition, last),
    )
    if is_more(found.dead, found.asked, level.most):
        alert = raise_or_renew(
            open_alerts,
            "",
            record_id(KIND, where, found.first),
            level.severity,
            since=at,
            at=at,
            silence_ms=level.contract.alerts.silence_ms,
        )
        if alert is None:
            return []
        summary = (
            f"{found.dead:,} of {found.asked:,} requests from {where}/{found.first} on are dead letters: more than "
            f"{level.most:.4g} of them. `tailrace dlq list` says why"
        )
        return [record(alert, summary=summary)]
    if open_alerts and found.dead <= level.most * found.asked:
        summary = f"{found.dead:,} of {found.asked:,} requests up to {where}/{last} are dead letters, which is borne"
        return [record(open_alerts.pop(""), summary=summary, resolved_at=at)]
    return []


def count_dead_letters(
    work: Batch,
    before: Mapping[TopicPartition, DeadLetterCount],
    levels: Mapping[str, DeadLetterLevel],
    holds: Mapping[TopicPartition, PausedPartition],
) -> tuple[dict[TopicPartition, DeadLetterCount], list[AlertRecord]]:
    """What each partition's next owner goes on counting from, and what there is to be told (schema ``alert.avsc``).

    Args:
        before: what was counted before the batch.
        levels: the share that is borne, by topic; others are not counted.
        holds: what is held is not counted yet.
    """
    counts: dict[TopicPartition, DeadLetterCount] = {}
    told: list[AlertRecord] = []
    if not levels:
        return counts, told
    offsets = work.offset_numbers
    dead, asks = np.zeros(len(offsets), dtype=np.bool_), np.ones(len(offsets), dtype=np.bool_)
    dead[list(work.bad)] = True
    asks[list(work.marks)] = False
    for partition, rows in work.places.items():
        mine = rows[asks[rows]]
        if partition.topic not in levels or not len(mine):
            continue
        hold = holds.get(partition)
        if hold is not None:
            mine = mine[offsets[mine] < hold.offset]
        counts[partition], alerts = count(
            before.get(partition, DeadLetterCount()),
            levels[partition.topic],
            partition,
            offsets[mine],
            work.append_times[mine],
            dead[mine],
        )
        told += alerts
    return counts, told
