"""The work of one run: rows, candidates, evaluation, gates, publication. A process of its own (see worker.py) does it.

Whatever is done here can be done again: the same run gives the same package, and that is published once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.columns import Array
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.guards.calibration import calibration_rows
from tailrace.models.package.build import BuildChecks, Package, build_package
from tailrace.models.package.rows import LabelledRows, imputed
from tailrace.models.predictions import Predictions
from tailrace.models.train import unfitted
from tailrace.models.trainable import refuse_untrainable
from tailrace.templates.table import TEMPLATES
from tailrace.templates.team_templates import find_template
from tailrace.trainer.dataset import Dataset, days
from tailrace.trainer.evaluate import baseline, evaluations, predictions_of
from tailrace.trainer.gates import GateEvidence, failed_gates
from tailrace.trainer.run import Run

_ORIGIN = ("distribution", "version", "digest")

Progress = Callable[[float, str], None]
"""Is called with what share of the work is done, and what is being done."""


@dataclass(frozen=True)
class Trained:
    """What came of the training, before anything is published.

    Attributes:
        failed: gates that do not let the candidate through; empty where all do.
        record: what the run's records say from now on (see ``training_run.avsc``).
    """

    package: Package
    failed: tuple[str, ...]
    record: Mapping[str, Any]


def train(
    run: Run, rows: Dataset, champion: LoadedModel | None, best: Mapping[str, float], progress: Progress
) -> Trained:
    """Trains the contract's template and the others beside it, and judges all of them by the latest fifth.

    Args:
        rows: the run's.
        champion: the version that the candidate has to beat, loaded from its package.
        best: by metric, the best value of a candidate that was published before.

    Raises:
        TailraceError: nothing can be trained on these rows; says why.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # another number of threads adds up in another order
        return _train(run, rows, champion, best, progress)


def _train(
    run: Run, rows: Dataset, champion: LoadedModel | None, best: Mapping[str, float], progress: Progress
) -> Trained:
    contract = rows.contract
    chosen = contract.training.template
    template, origin = find_template(chosen)
    (x, y), (held_x, held_y) = rows.train, rows.held
    progress(0.2, f"training {chosen} on {len(y):,} rows, {len(held_y):,} held back")
    refuse_untrainable(template, x, y, contract)
    package = build_package(
        unfitted(template, contract, run.seed, contract.training.options).fit(x, y),
        x,
        y,
        contract,
        holdout=(held_x, held_y),
        selection=f"run {run.run_id}: {len(y):,} outcomes of {days(run.window_start)} to {days(run.window_end)}",
        template=origin,
        seeds={"random_state": run.seed},
        checks=BuildChecks(allow_inverted=True),  # the contract's gates judge it
    )
    candidate = LoadedModel(package.manifest, load_model(package.manifest, package.parts["model"]))
    held, held_frame = rows.held_rows, rows.held_frame
    if candidate.manifest.calibration is not None:  # nobody is judged on rows that something was fitted on
        later = np.arange(calibration_rows(len(held)), len(held))
        held, held_frame, held_x = held.take(later), held_frame[later], held_x.iloc[later]
    predictions = {"candidate": _predictions(candidate, held), "baseline": baseline(y, len(held), contract)}
    entries = [
        *evaluations("candidate", predictions["candidate"], held.truth, contract, template=chosen),
        *evaluations("baseline", predictions["baseline"], held.truth, contract),
    ]
    if champion is not None:
        predictions["champion"], version = _predictions(champion, held), champion.manifest.version
        entries += evaluations("champion", predictions["champion"], held.truth, contract, version=version)
    trained_too = list(_others(chosen, x, y, contract, run.seed, held_x, progress))
    for name, own in trained_too:
        entries += evaluations("other", own, held.truth, contract, template=name)
    failed = failed_gates(GateEvidence(contract, candidate, held, held_frame, predictions, best))
    return Trained(
        package,
        tuple(failed),
        {
            "templates": [chosen, *(name for name, _ in trained_too)],
            "template": chosen,
            **({} if origin is None else {f"template_{name}": getattr(origin, name) for name in _ORIGIN}),
            "dataset_digest": rows.digest,
            "rows": len(y),
            "held_back": len(held),
            "evaluations": entries,
            "content_digest": package.manifest.content_digest,
        },
    )


def _others(
    chosen: str, x: Any, y: Array, contract: ModelContract, seed: int, held_x: Any, progress: Progress
) -> Iterable[tuple[str, Predictions]]:
    """Tailrace's templates but the contract's, for comparison; one that cannot be trained is left out."""
    others = [template for template in TEMPLATES if template.name != chosen]
    for number, template in enumerate(others):
        name, share = template.name, 0.5 + 0.4 * number / len(others)
        progress(share, f"training {name} for comparison")
        try:
            refuse_untrainable(template, x, y, contract)
            yield name, predictions_of(unfitted(template, contract, seed).fit(x, y), held_x, contract)
        except (TailraceError, ValueError) as error:
            progress(share, f"{name} cannot be trained: {error}")


def _predictions(model: LoadedModel, rows: LabelledRows) -> Predictions:
    """Of a package's model for the rows, as a scorer would hand them to it."""
    columns = imputed(rows.columns, model.manifest.inputs, model.manifest.impute)
    return model.predict(columns, len(rows))
