"""Counts each partition's dead letters as a batch goes on, and tells where they are more than its lane bears."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tailrace.scorer.batch import Batch
from tailrace.scorer.dead_letter_share import DeadLetterCount, DeadLetterLevel, count
from tailrace.streaming.records import PausedPartition, TopicPartition


def count_dead_letters(
    work: Batch,
    before: Mapping[TopicPartition, DeadLetterCount],
    levels: Mapping[str, DeadLetterLevel],
    holds: Mapping[TopicPartition, PausedPartition],
) -> tuple[dict[TopicPartition, DeadLetterCount], list[dict[str, Any]]]:
    """What each partition's next owner goes on counting from, and what there is to be told (schema ``alert.avsc``).

    Args:
        before: what was counted before the batch.
        levels: the share that is borne, by topic; others are not counted.
        holds: what is held is not counted yet.
    """
    counts: dict[TopicPartition, DeadLetterCount] = {}
    told: list[dict[str, Any]] = []
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
