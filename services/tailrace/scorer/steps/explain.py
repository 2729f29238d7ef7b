"""Why a score is what it is: what each feature adds to it, against rows of the training data.

Shapley values by sampled permutations (Strumbelj and Kononenko, "Explaining Prediction Models and Individual
Predictions with Feature Contributions", 2014): one feature after the other takes the row's value in place of the
background row's, and what the output changes by is the feature's. Every background row is used the same number of
times, with a permutation and with its reverse (Mitchell et al., "Sampling Permutations for Shapley Value Estimation",
2022). So the contributions add up to the output less the mean output of the background; and they are exact, not
sampled, for models that add up what each feature says, as linear ones do, and for those that add up pairs.

Probabilities are explained in log-odds, in which linear classifiers are linear: of the positive class, with several
classes of the predicted one. Values are explained in their own unit.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from tailrace.avro.columns.decoder import Ints
from tailrace.avro.columns.hashing import source_positions
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Array, Coded, Columns, plain
from tailrace.models.formats.load import LoadedModel
from tailrace.models.guards.calibration import elementwise
from tailrace.scorer.answers import Contribution, ScoredAnswers
from tailrace.scorer.routed_rows import RoutedRows

log = logging.getLogger(__name__)

LEAST_PROBABILITY = 1e-9
MOST_AT_ONCE = 65_536
"""Rows that the model is given in one call, at most."""


def explain_answers(routed: RoutedRows) -> None:
    """Explains the answers that the contract's ``explain`` names; a shadow's are none."""
    if routed.identity.role != "shadow":
        explanations = routed.plan.worked_out(Explanations)
        routed.answers.explanations = explanations.of(routed.model, routed.rows.columns, routed.answers)


def explain(
    model: LoadedModel, background: Columns, columns: Mapping[str, Coded], rows: Ints, top: int
) -> dict[int, list[Contribution]]:
    """The largest ``top`` contributions of each of these rows, the largest first.

    Raises:
        Exception: whatever the model raises on a mixture of a row and the background.
    """
    count = len(next(iter(background.values())))
    at_once = max(1, MOST_AT_ONCE // (2 * count * (len(model.input_names) + 1)))
    contributions: dict[int, list[Contribution]] = {}
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        for row, values in zip(part.tolist(), shapley(model, background, columns, part), strict=True):
            order = np.argsort(-np.abs(values), kind="stable")[:top].tolist()
            contributions[row] = [Contribution(model.input_names[at], float(values[at])) for at in order]
    return contributions


def shapley(
    model: LoadedModel, background: Columns, columns: Mapping[str, Coded], rows: Ints, draw: int = 0
) -> Array:
    """Contributions [rows, inputs] of these rows, in the order of the model's inputs.

    ``draw`` numbers the sample of permutations; answers are explained by number 0.
    """
    names = model.input_names
    inputs = {name: plain(columns[name].take(rows)) for name in names}
    count, features = len(next(iter(background.values()))), len(names)
    orders = _orders(count, features, draw)  # [paths, features]
    paths = len(orders)
    # How many steps into each path a feature takes the row's value; a step more than there are features.
    turn = np.argsort(orders, axis=1)
    steps = np.arange(features + 1)
    of_row = steps[None, :, None] > turn[:, None, :]  # [paths, steps, features]
    mixed = {}
    for at, name in enumerate(names):
        own, others = inputs[name][:, None, None], np.tile(background[name], 2)[None, :, None]
        mixed[name] = np.where(of_row[None, :, :, at], own, others).reshape(-1)
    chosen = explained_output(model, inputs, len(rows))
    outputs = explained_values(model, mixed, np.repeat(chosen, paths * (features + 1)))
    gains = np.diff(outputs.reshape(len(rows), paths, features + 1), axis=2)  # by step
    by_feature = np.take_along_axis(gains, np.broadcast_to(turn, gains.shape), axis=2)
    mean: Array = by_feature.mean(axis=1)
    return mean


@functools.lru_cache(maxsize=64)
def _orders(count: int, features: int, draw: int) -> Array:
    """A permutation for each background row, then their reverses; the same ones for every row that is explained."""
    random = np.random.default_rng(draw)
    orders = np.array([random.permutation(features) for _ in range(count)]).reshape(count, features)
    return np.concatenate([orders, orders[:, ::-1]])


def explained_output(model: LoadedModel, columns: Mapping[str, Coded], rows: int) -> Array:
    """Which output of each row is explained: that of the positive class, or of the predicted one."""
    manifest = model.manifest
    if manifest.positive is not None:
        return np.full(rows, manifest.classes.index(manifest.positive))
    chosen: Array = model.calibrated(model.outputs(columns, rows)).argmax(axis=1)
    return chosen


def explained_values(model: LoadedModel, columns: Columns, chosen: Array) -> Array:
    """The model's outputs in the unit in which they are explained; ``chosen`` is the output of each row."""
    rows = len(chosen)
    values: Array = model.calibrated(model.outputs(columns, rows))[np.arange(rows), chosen]
    if not model.manifest.classes:
        return values
    likely = np.clip(values, LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    return elementwise(np.log, likely) - elementwise(np.log1p, -likely)


class Explanations:
    """What one contract has explained."""

    def __init__(self, contract: ModelContract) -> None:
        self._share, self._top = contract.explain.sample, contract.explain.top
        self._always = frozenset(contract.explain.always)

    def of(
        self, model: LoadedModel, columns: Mapping[str, Coded], answers: ScoredAnswers
    ) -> Mapping[int, Sequence[Contribution]]:
        """The explanations by row. There are none of a package of before it had a background, nor where the model
        raises on a mixture of rows: an answer does not wait for its explanation.
        """
        reference = model.reference
        if not (self._share or self._always) or reference is None or reference.background is None:
            return {}
        rows = self._rows(answers)
        if not len(rows):
            return {}
        manifest = model.manifest
        try:
            return explain(model, reference.background_columns(manifest.inputs), columns, rows, self._top)
        except MemoryError:
            raise
        except Exception as error:  # whatever a model raises
            which = {"model": manifest.model, "version": manifest.version}
            log.warning("no explanation", extra=which | {"why": str(error)[:300]})
            return {}

    def _rows(self, answers: ScoredAnswers) -> Ints:
        chosen = np.zeros(len(answers.bodies), dtype=np.bool_)
        if self._always:
            named = np.array([option.action in self._always for option in answers.options])
            chosen |= named[answers.choices]
            if answers.outputs.most_probable is not None:
                by_class = np.array([option.action is None for option in answers.options])
                wanted = np.array([name in self._always for name in answers.outputs.classes])
                chosen |= by_class[answers.choices] & wanted[answers.outputs.most_probable]
        if self._share:
            at = source_positions("explain", answers.topic, answers.partitions, answers.offsets)
            chosen |= at < self._share
        return np.flatnonzero(chosen)
