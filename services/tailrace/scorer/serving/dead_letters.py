"""Alerts of dead letters: of a partition's requests more became dead letters than the contract bears.

Judged by every 1,000 requests of a partition, in the order of the log. So whoever reads requests and dead letters again
comes to the same, at whatever speed, however often owners change; and it says so in a replay too. What is counted so
far goes with the committed offset to the next owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """The count after some requests, and the alerts to be sent.

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
            last = RecordRef(*partition, int(offsets[upto - 1]))
            alerts += _judge(now, level, last, int(appended[upto - 1]), still_open)
            now = DeadLetterCount(open=still_open)
        at = upto
    return now, alerts


def _judge(
    count: DeadLetterCount, level: DeadLetterLevel, last: RecordRef, at: int, open_alerts: OpenAlerts
) -> list[AlertRecord]:
    where, dead, asked = f"{last.topic}/{last.partition}", count.dead, count.asked
    first = f"{where}/{count.first}"
    detail = {"found": str(dead), "requests": str(asked), "level": repr(level.most), "first": first}
    facts: dict[str, Any] = {
        "service": "scorer",
        "model": level.contract.model,
        "detail": detail,
        "source": last,
    }
    if is_more(dead, asked, level.most):
        alert_id, silence_ms = record_id(KIND, where, count.first), level.contract.alerts.silence_ms
        alert = raise_or_renew(
            open_alerts, "", alert_id, level.severity, since=at, at=at, silence_ms=silence_ms
        )
        summary = (
            f"{dead:,} of {asked:,} requests from {first} on are dead letters: more than {level.most:.4g} of them. "
            "`tailrace dlq list` says why"
        )
        return [] if alert is None else [open_alert_record(KIND, alert, summary=summary, **facts)]
    if open_alerts and dead <= level.most * asked:
        summary = f"{dead:,} of {asked:,} requests up to {last} are dead letters, which is borne"
        alert = open_alerts.pop("")
        return [open_alert_record(KIND, alert, summary=summary, resolved_at=at, **facts)]
    return []


def count_dead_letters(
    batch: Batch,
    before: Mapping[TopicPartition, DeadLetterCount],
    levels: Mapping[str, DeadLetterLevel],
    paused: Mapping[TopicPartition, PausedPartition],
) -> tuple[dict[TopicPartition, DeadLetterCount], list[AlertRecord]]:
    """What each partition's next owner goes on counting from, and the alerts to be sent.

    Args:
        before: what was counted before the batch.
        levels: the share that is borne, by topic; others are not counted.
        paused: what is behind is not counted yet.
    """
    counts: dict[TopicPartition, DeadLetterCount] = {}
    alerts: list[AlertRecord] = []
    if not levels:
        return counts, alerts
    offsets = batch.offset_numbers
    dead, asks = np.zeros(len(offsets), dtype=np.bool_), np.ones(len(offsets), dtype=np.bool_)
    dead[list(batch.bad)] = True
    asks[list(batch.watermarks)] = False
    for partition, rows in batch.places.items():
        mine = rows[asks[rows]]
        if partition.topic not in levels or not len(mine):
            continue
        pause = paused.get(partition)
        if pause is not None:
            mine = mine[offsets[mine] < pause.offset]
        counted, level = before.get(partition, DeadLetterCount()), levels[partition.topic]
        requests = offsets[mine], batch.append_times[mine], dead[mine]
        counts[partition], new = count(counted, level, partition, *requests)
        alerts += new
    return counts, alerts
