"""The work of one run: rows, candidates, evaluation, gates, publication. A process of its own (see worker.py) does it.

Whatever is done here can be done again: the same run gives the same package, and that is published once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailrace.avro.codec import Codec
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.columns import Array
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.guards.calibration import calibration_rows
from tailrace.models.package.build import Package, build_package
from tailrace.models.package.rows import LabelledRows, imputed
from tailrace.models.predictions import Predictions
from tailrace.models.train import unfitted
from tailrace.streaming.records import Message
from tailrace.templates.table import TEMPLATES
from tailrace.templates.team_templates import TemplateOrigin, find_template
from tailrace.trainer.dataset import Dataset, dataset, days
from tailrace.trainer.evaluate import baseline, evaluations, predictions_of
from tailrace.trainer.gates import GateEvidence, failed_gates
from tailrace.trainer.run import Run

Say = Callable[[float, str], None]
"""Told what share of the work is done, and what is being done."""


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


def gather(run: Run, contract: ModelContract, codec: Codec, outcomes: Iterable[Message], say: Say) -> Dataset:
    """The run's rows, read from ``LANE.outcomes``."""
    say(0.0, "reading outcomes")
    return dataset(run, contract, codec, outcomes)


def train(
    run: Run, rows: Dataset, champion: LoadedModel | None, best: Mapping[str, float], say: Say
) -> Trained:
    """Trains the contract's template and the others beside it, and judges all of them by the latest fifth.

    Args:
        run: what is to be done.
        rows: its rows.
        champion: the version that the candidate has to beat, loaded from its package.
        best: by metric, the best value of a candidate that was published before.
        say: told what goes on.

    Raises:
        TailraceError: nothing can be trained on these rows; says why.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # another number of threads adds up in another order
        return _train(run, rows, champion, best, say)


def _train(
    run: Run, rows: Dataset, champion: LoadedModel | None, best: Mapping[str, float], say: Say
) -> Trained:
    contract = rows.contract
    chosen = contract.training.template
    template, origin = find_template(chosen)
    (x, y), (held_x, held_y) = rows.train, rows.held
    say(0.2, f"training {chosen} on {len(y):,} rows, {len(held_y):,} held back")
    package = build_package(
        unfitted(template, contract, run.seed, contract.training.options).fit(x, y),
        x,
        y,
        contract,
        holdout=(held_x, held_y),
        selection=f"run {run.run_id}: {len(y):,} outcomes of {days(run.window_start)} to {days(run.window_end)}",
        template=origin,
        seeds={"random_state": run.seed},
    )
    candidate = LoadedModel(package.manifest, load_model(package.manifest, package.parts["model"]))
    held, held_frame = rows.held_rows, rows.held_frame
    if candidate.manifest.calibration is not None:  # nobody is judged on rows that something was fitted on
        later = np.arange(calibration_rows(len(held)), len(held))
        held, held_frame, held_x = held.take(later), held_frame[later], held_x.iloc[later]
    said = {"candidate": _said(candidate, held), "baseline": baseline(y, len(held), contract)}
    found = [
        *evaluations("candidate", said["candidate"], held.truth, contract, template=chosen),
        *evaluations("baseline", said["baseline"], held.truth, contract),
    ]
    if champion is not None:
        said["champion"] = _said(champion, held)
        found += evaluations(
            "champion", said["champion"], held.truth, contract, version=champion.manifest.version
        )
    trained_too = list(_others(chosen, x, y, contract, run.seed, held_x, say))
    for name, predictions in trained_too:
        found += evaluations("other", predictions, held.truth, contract, template=name)
    failed = failed_gates(GateEvidence(contract, candidate, held, held_frame, said, best))
    return Trained(
        package,
        tuple(failed),
        {
            "templates": [chosen, *(name for name, _ in trained_too)],
            "template": chosen,
            **({} if origin is None else _record_of(origin)),
            "dataset_digest": rows.digest,
            "rows": len(y),
            "held_back": len(held),
            "evaluations": found,
            "content_digest": package.manifest.content_digest,
        },
    )


def _others(
    chosen: str, x: Any, y: Array, contract: ModelContract, seed: int, held_x: Any, say: Say
) -> Iterable[tuple[str, Predictions]]:
    """Tailrace's templates but the contract's, for comparison; one that cannot be trained is left out."""
    others = [template for template in TEMPLATES if template.name != chosen]
    for number, template in enumerate(others):
        name, share = template.name, 0.5 + 0.4 * number / len(others)
        say(share, f"training {name} for comparison")
        try:
            yield name, predictions_of(unfitted(template, contract, seed).fit(x, y), held_x, contract)
        except (TailraceError, ValueError) as error:
            say(share, f"{name} cannot be trained: {error}")


def _record_of(origin: TemplateOrigin) -> dict[str, str]:
    return {
        "template_distribution": origin.distribution,
        "template_version": origin.version,
        "template_digest": origin.digest,
    }


def _said(model: LoadedModel, rows: LabelledRows) -> Predictions:
    """What a package's model says about the rows, as a scorer would hand them to it."""
    columns = imputed(rows.columns, model.manifest.inputs, model.manifest.impute)
    return model.predict(columns, len(rows))
