"""Counts predictions into windows: per version, role and segment, by slots of the version's reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tailrace.avro.columns.decoder import Column, Mask
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.drift.counts import DriftCounts
from tailrace.drift.layout import PREDICTED_CLASS, SCORE, SlotLayout
from tailrace.drift.read_predictions import PredictionRows
from tailrace.drift.segments import ALL, Split, splits
from tailrace.statistics.result import Ints
from tailrace.windows.kinds import Times, window_starts

_DENSE_CELLS = 1 << 22
"""Up to this many counters are held for a batch at a time."""


class DriftSubject(NamedTuple):
    """What within a window is counted for itself."""

    version: int
    artifact_digest: str
    role: str
    segment: str


class CountedPredictions(NamedTuple):
    """What rows come to in one window."""

    window_start: int
    subject: DriftSubject
    counts: DriftCounts


def count(
    predictions: PredictionRows, contract: ModelContract, layout: SlotLayout | None, before: Times
) -> Iterator[CountedPredictions]:
    """Counts predictions of one identity.

    A row whose window had closed for its partition is late: it is a number in the window in which the partition's
    stream time was, and is in no other count.

    Args:
        contract: the one that they were made under.
        layout: the slots of their version; None where its reference is not to be had.
        before: the stream time of each row's partition before the row.
    """
    times, length, identity = predictions.event_times, contract.drift.window_ms, predictions.identity
    starts = window_starts(times, length)
    late = starts + length <= before - contract.event_time.lateness_ms
    windows, window_at = np.unique(np.where(late, window_starts(before, length), starts), return_inverse=True)
    slots = _slots(predictions, layout, len(times))
    everywhere = Split(ALL, (ALL,), (ALL,))
    for split in (everywhere, *splits(contract)):
        codes = (
            np.zeros(len(times), dtype=np.int64)
            if split is everywhere
            else split.codes(predictions.request.get(split.field), len(times))
        )
        group_of_row = np.where(codes < 0, -1, window_at * len(split.names) + codes)
        groups, group_at = np.unique(group_of_row, return_inverse=True)
        for group, counts in enumerate(_grouped(slots, group_at, late, len(groups), layout)):
            if groups[group] >= 0:
                window, code = divmod(int(groups[group]), len(split.names))
                whose = identity.version, identity.artifact_digest, identity.role
                subject = DriftSubject(*whose, split.names[code])
                yield CountedPredictions(int(windows[window]), subject, counts)


def _slots(predictions: PredictionRows, layout: SlotLayout | None, rows: int) -> list[Ints]:
    if layout is None:
        return []
    columns: dict[str, Column] = dict(predictions.request)
    score = predictions.outputs[SCORE]
    if score.present is not None and not score.present.any():
        score = predictions.outputs["value"]  # of a regression
    columns |= {SCORE: score, PREDICTED_CLASS: predictions.outputs[PREDICTED_CLASS]}
    if predictions.identity.served_by != "model":
        # What answered in the model's place says nothing about the model: its outputs are missing.
        for name in (SCORE, PREDICTED_CLASS):
            del columns[name]
    return layout.slots(columns, rows)


def _grouped(
    slots: Sequence[Ints], group_at: Ints, late: Mask, groups: int, layout: SlotLayout | None
) -> Iterator[DriftCounts]:
    """What the rows of each group come to."""
    on_time = np.flatnonzero(~late)
    rows = np.bincount(group_at[on_time], minlength=groups)
    lates = np.bincount(group_at[late], minlength=groups)
    width = layout.width if layout is not None else 0
    at_once = max(1, _DENSE_CELLS // max(width, 1))
    for first in range(0, groups, at_once):
        number = min(at_once, groups - first)
        inside = on_time
        if number < groups:
            inside = on_time[(group_at[on_time] >= first) & (group_at[on_time] < first + number)]
        table = np.zeros((number, width), dtype=np.int64)
        for field, field_slots in zip(layout.fields if layout is not None else (), slots, strict=True):
            at = (group_at[inside] - first) * field.width + (field_slots[inside] - field.first)
            counts = np.bincount(at, minlength=number * field.width).reshape(number, field.width)
            table[:, field.first : field.first + field.width] = counts
        for group in range(number):
            yield DriftCounts(int(rows[first + group]), int(lates[first + group]), table[group])
