"""The contract's gates that a candidate has to pass before it is published, on the rows held back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from tailrace.contracts.expressions.compiler import compile_expression
from tailrace.contracts.language.expression_columns import request_columns
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import Direction
from tailrace.models.columns import Array
from tailrace.models.formats.load import LoadedModel
from tailrace.models.package.holdout_metrics import holdout_metrics
from tailrace.models.package.rows import LabelledRows, imputed
from tailrace.models.predictions import Predictions
from tailrace.statistics.metrics import METRIC

LEAST_ROWS = 30
"""A slice with fewer rows is not judged."""
_STEPS = 8
_ROWS = 256
_SLACK = 1e-9


@dataclass(frozen=True)
class GateEvidence:
    """What the gates look at.

    Attributes:
        candidate: the package's model.
        rows: the rows held back, as models are given them, and the truth.
        frame: the same rows with features and context by name.
        predictions: of candidate, baseline and, where there is one, champion, for the rows.
        best: by metric, the best value that a published candidate ever had on the rows held back for it.
    """

    contract: ModelContract
    candidate: LoadedModel
    rows: LabelledRows
    frame: pl.DataFrame
    predictions: Mapping[str, Predictions]
    best: Mapping[str, float]


def failed_gates(judged: GateEvidence) -> list[str]:
    """Why the candidate is not let through, gate by gate; empty where it is."""
    return [*_beat(judged), *_ratchet(judged), *_not_worse_on(judged), *_directions(judged)]


def _beat(judged: GateEvidence) -> Iterator[str]:
    gates = judged.contract.gates
    for who, metric, by in (
        ("champion", gates.beat_champion.metric, gates.beat_champion.by),
        ("baseline", gates.beat_baseline.metric, 0.0),
    ):
        assert metric is not None
        if who not in judged.predictions:
            continue
        ours, theirs = _value(judged, "candidate", metric), _value(judged, who, metric)
        if ours is None or theirs is None:
            yield f"beat_{who}: {metric} is not defined on the rows held back"
            continue
        gain = METRIC[metric].better_by(ours, theirs)
        if not (gain > 0 and gain >= by):
            asked = f", {by:g} better was asked for" if by else ""
            yield f"beat_{who}: {metric} is {ours:.4f}, the {who}'s {theirs:.4f}{asked}"


def _ratchet(judged: GateEvidence) -> Iterator[str]:
    gate = judged.contract.gates.ratchet
    if gate is None or gate.metric not in judged.best:
        return
    ours, best = _value(judged, "candidate", gate.metric), judged.best[gate.metric]
    if ours is None or METRIC[gate.metric].better_by(ours, best) < -gate.tolerance:
        value = "not defined" if ours is None else f"{ours:.4f}"
        yield f"ratchet: {gate.metric} is {value}, the best ever was {best:.4f} (tolerance {gate.tolerance:g})"


def _not_worse_on(judged: GateEvidence) -> Iterator[str]:
    gate = judged.contract.gates.not_worse_on
    if gate is None or "champion" not in judged.predictions:
        return
    for name, mask in _slices(judged, gate.slices):
        rows = np.flatnonzero(mask)
        if len(rows) < LEAST_ROWS:
            continue
        ours, theirs = (_value(judged, who, gate.metric, rows) for who in ("candidate", "champion"))
        if ours is None or theirs is None:
            continue
        if METRIC[gate.metric].better_by(ours, theirs) < -gate.tolerance:
            yield f"not_worse_on {name}: {gate.metric} is {ours:.4f}, the champion's {theirs:.4f} on {len(rows)} rows"


def _slices(judged: GateEvidence, wanted: list[str]) -> Iterator[tuple[str, Array]]:
    """Each slice's name and which rows are in it: by the values of a field, or where a condition holds."""
    columns = request_columns(judged.contract)
    for text in wanted:
        if text in columns:
            for value in judged.frame[text].drop_nulls().unique().sort():
                mask: Array = (judged.frame[text] == value).fill_null(False).to_numpy()
                yield f"{text}={value}", mask
        else:
            yield text, compile_expression(text, columns, "boolean").matches(judged.frame).to_numpy()


def _directions(judged: GateEvidence) -> Iterator[str]:
    for direction in judged.contract.gates.directions:
        against = _against(judged, direction)
        if against is not None:
            moved, tried = against
            yield (
                f"directions: the score goes {direction.score.removeprefix('not_')} where {direction.raise_field} "
                f"rises, all else equal, in {moved} of {tried} rows tried"
            )


def _against(judged: GateEvidence, direction: Direction) -> tuple[int, int] | None:
    """How many of the rows tried move against the direction when the feature rises over values of the data."""
    manifest, name = judged.candidate.manifest, direction.raise_field
    if name not in judged.candidate.input_names:
        return None
    chosen = np.unique(np.linspace(0, len(judged.rows) - 1, min(_ROWS, len(judged.rows))).astype(np.int64))
    columns = imputed(judged.rows.take(chosen).columns, manifest.inputs, manifest.impute)
    present = columns[name][~np.isnan(columns[name])]
    if not len(present):
        return None
    scores = []
    for value in np.unique(np.quantile(present, np.linspace(0, 1, _STEPS))):
        predictions = judged.candidate.predict({**columns, name: np.full(len(chosen), value)}, len(chosen))
        scores.append(predictions.score if predictions.score is not None else predictions.value)
    if len(scores) < 2 or scores[0] is None:
        return None
    moves = np.diff(np.array(scores), axis=0)
    against = moves > _SLACK if direction.score == "not_up" else moves < -_SLACK
    rows = int(np.sum(against.any(axis=0)))
    return (rows, len(chosen)) if rows else None


def _value(judged: GateEvidence, who: str, metric: str, rows: Array | None = None) -> float | None:
    predictions, truth = judged.predictions[who], judged.rows.truth
    if rows is not None:
        predictions, truth = predictions.take(rows), truth[rows]
    return holdout_metrics(predictions, truth, judged.contract.positive_class).get(metric)
