"""Explains a logged prediction from its package: what each feature adds to what the model says."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tailrace.avro.codec import Codec
from tailrace.connection import Connection, home_dir
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.fold import ControlState
from tailrace.errors import TailraceError
from tailrace.models.catalog import Catalog
from tailrace.models.columns import Columns, plain
from tailrace.models.formats.load import LoadedModel
from tailrace.models.package.open import known_to
from tailrace.scorer.batch import Batch
from tailrace.scorer.plans import ServingPlan
from tailrace.scorer.steps.check_input import check
from tailrace.scorer.steps.explain import explained_output, explained_values, shapley
from tailrace.scorer.steps.model import fill_missing
from tailrace.scorer.steps.read_request import read_requests
from tailrace.streaming.records import Message, RecordRef
from tailrace.verify.logged import ALWAYS, Logged, LoggedPredictions, Span, packages
from tailrace.verify.received import received
from tailrace.verify.rescore import is_here

DRAWS = 16
"""Samples of permutations that an explanation on demand is the mean of. A logged one is the first of them."""
_EXACT = 1e-6
_SINGLE_PRECISION = 1e-5


@dataclass(frozen=True)
class Explained:
    """A prediction and why it is what it is.

    Attributes:
        event: the prediction as it was logged.
        what: whose log-odds are explained, or of which target the value.
        baseline: mean of what the model says about the package's background; with the contributions it adds up to
            ``output``, what it says about the row.
        values: the inputs as the model took them, by feature.
        contributions: by feature, the largest first.
        errors: their standard errors, by feature.
        logged: the contributions in the event, by feature; None where it has none.
        as_logged: whether these come out again: to the bit where CPU and libraries are those that computed them, nearly
            elsewhere; None where there are none.
    """

    at: RecordRef
    event: dict[str, Any]
    what: str
    baseline: float
    output: float
    values: dict[str, Any]
    contributions: dict[str, float]
    errors: dict[str, float]
    logged: dict[str, float] | None
    as_logged: bool | None

    @property
    def exact(self) -> bool:
        """Whether every sample of permutations says the same, as for a model that adds up features or pairs of them."""
        sizes = 1.0 + sum(map(abs, self.contributions.values()))
        return max(self.errors.values()) <= _EXACT * sizes

    def as_dict(self) -> dict[str, Any]:
        """The form that ``--json`` prints."""
        names = ("prediction_id", "request_id", "model", "version", "role", "artifact_digest")
        answer = ("score", "predicted_class", "value", "action", "rule")
        logged = self.logged or {}
        return {
            "prediction": str(self.at),
            **{name: self.event[name] for name in (*names, *answer)},
            "of": self.what,
            "baseline": self.baseline,
            "output": self.output,
            "exact": self.exact,
            "contributions": [
                {
                    "feature": name,
                    "value": self.values[name],
                    "contribution": contribution,
                    "standard_error": self.errors[name],
                    "logged": logged.get(name),
                }
                for name, contribution in self.contributions.items()
            ],
            "as_logged": self.as_logged,
        }


def explain_logged(
    connection: Connection, name: str, model: str | None = None, span: Span = ALWAYS, home: Path | None = None
) -> Explained:
    """Explains the prediction with this id, or the answer to the request with this id.

    Args:
        model: only among this model's predictions.
        span: when it was logged; the log is read no further than that.
        home: where packages are cached and keys trusted.

    Raises:
        UsageError: there is none.
        TailraceError: something else than the version answered, or its package has no background to explain against.
        PackageRefused: the package is not there any more, or not as it was signed.
        Unavailable: Kafka or the registry does not answer.
    """
    with closing(LoggedPredictions(connection, model)) as logged:
        prediction = _one(logged.by_id(name, span), name)
    codec = Codec(logged.registry)
    event = codec.decode(prediction.message.value()).record
    if event["served_by"] != "model":
        raise TailraceError(
            f"version {event['version']} did not answer this request: {event['served_by']} did "
            f"({event['served_cause']}), so there is nothing to explain"
        )
    applied = logged.contracts.by_digest[event["contract_digest"]]
    plan = ServingPlan(applied, prediction.message.topic(), codec, logged.registry)
    record = _manifest(logged, home or home_dir(), event["model"], event["version"])
    opened = packages(connection, home or home_dir())(record, applied.contract)
    columns = _row(received(prediction.message, codec, logged.registry), plan, opened)
    return _explained(RecordRef.of(prediction.message), event, opened, columns)


def _one(predictions: list[Logged], name: str) -> Logged:
    """What answered comes before what was scored in shadow."""
    in_order = sorted(predictions, key=lambda each: each.header["role"] == "shadow")
    return next((each for each in in_order if each.header["prediction_id"] == name), in_order[0])


def _manifest(logged: LoggedPredictions, home: Path, model: str, version: int) -> ModelManifestRecord:
    catalog = Catalog(known_to(home))
    ControlState(logged.records, catalog).take(logged.control)
    record = catalog.record(model, version)
    if record is None:
        raise TailraceError(f"version {version} of {model} was never published: `tailrace verify` says more")
    return record


def _row(request: Message, plan: ServingPlan, model: LoadedModel) -> Columns:
    """The request as the scorer hands it to the model."""
    batch = Batch.of([request], 0)
    lane = Lane(plan.contract.lane)
    requests, _, bad = read_requests([request], batch.topics, {lane.requests: [plan]})
    if bad:
        raise TailraceError(f"the logged request cannot be read: {bad[0]}")
    columns = fill_missing(check(batch, requests[0]), model).columns
    return {name: plain(columns[name]) for name in model.input_names}


def _explained(at: RecordRef, event: dict[str, Any], model: LoadedModel, columns: Columns) -> Explained:
    manifest, reference = model.manifest, model.reference
    if reference is None or reference.background is None:
        raise TailraceError(
            f"version {manifest.version} of {manifest.model} was made by an earlier Tailrace and has no rows of its "
            "training data to explain against: publish it again"
        )
    background = reference.background_columns(manifest.inputs)
    count = len(next(iter(background.values())))
    one = np.zeros(1, dtype=np.int64)
    chosen = explained_output(model, columns, 1)
    draws = np.array([shapley(model, background, columns, one, draw)[0] for draw in range(DRAWS)])
    mean, error = draws.mean(axis=0), draws.std(axis=0, ddof=1) / np.sqrt(DRAWS)
    order = np.argsort(-np.abs(mean), kind="stable").tolist()
    names = model.input_names
    logged = None
    if event["explanation"] is not None:
        logged = {each["feature"]: each["contribution"] for each in event["explanation"]}
    first = dict(zip(names, draws[0].tolist(), strict=True))
    within = 0.0 if is_here(event) else _SINGLE_PRECISION
    what = manifest.classes[int(chosen[0])] if manifest.classes else ""
    return Explained(
        at=at,
        event=event,
        what=f"log-odds of {what}" if what else "value",
        baseline=float(explained_values(model, background, np.repeat(chosen, count)).mean()),
        output=float(explained_values(model, columns, chosen)[0]),
        values={name: _plain(columns[name][0]) for name in names},
        contributions={names[at]: float(mean[at]) for at in order},
        errors={names[at]: float(error[at]) for at in order},
        logged=logged,
        as_logged=None if logged is None else all(abs(first[n] - c) <= within for n, c in logged.items()),
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return None if np.isnan(value) else float(value)
