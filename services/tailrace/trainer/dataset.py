"""The rows that a run trains on and is judged by: what the answers of a time turned out to be, as known at the cut.

A function of the run and the log: outcomes are distinguished by event time and by when they were known, never by when
they were read, and stand in the order of the requests' coordinates.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from tailrace.avro.codec import Codec
from tailrace.contracts.language.fields import ContextField, Feature
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.schemas import outcome_schema, prediction_schema
from tailrace.errors import BadRecord, TailraceError
from tailrace.models.class_names import class_text
from tailrace.models.columns import Array
from tailrace.models.package.build import HOLDOUT_SHARE
from tailrace.models.package.rows import LEAST_ROWS, LabelledRows
from tailrace.models.package.table import columns_of, data_digest, inputs_of, target_of
from tailrace.models.train import frame_of
from tailrace.streaming.records import Message
from tailrace.trainer.run import Run

_OUTCOME = ("revision", "state", "duplicate_of", "known_at", "label")
_PREDICTION = ("prediction_id", "event_time", "source", "model", "role", "request")
_DTYPES = {
    "number": pl.Float64,
    "integer": pl.Int64,
    "boolean": pl.Boolean,
    "category": pl.String,
    "string": pl.String,
}


@dataclass(frozen=True)
class Dataset:
    """Labelled rows in the order of event time, then of the requests' coordinates.

    Attributes:
        contract: the contract in force.
        frame: features, context and target by name.
        ids: of the predictions, by row.
        left_out: how many outcomes were left out, by reason.
    """

    contract: ModelContract
    frame: pl.DataFrame
    ids: tuple[str, ...]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return self.frame.height

    @property
    def cut(self) -> int:
        """Row at which the held-back ones begin: the latest fifth."""
        return len(self) - max(1, int(len(self) * HOLDOUT_SHARE))

    @property
    def train(self) -> tuple[Any, Array]:
        """Features as a pandas frame, and the truth."""
        return self._part(self.frame.head(self.cut))

    @property
    def held(self) -> tuple[Any, Array]:
        """As ``train``, of the rows that are held back."""
        return self._part(self.held_frame)

    @property
    def held_frame(self) -> pl.DataFrame:
        return self.frame.tail(len(self) - self.cut)

    @cached_property
    def held_rows(self) -> LabelledRows:
        """The rows held back, as models are given them."""
        return self._rows(self.held_frame)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the rows, in order."""
        rows = self._rows(self.frame)
        digest = hashlib.sha256("\n".join(self.ids).encode())
        digest.update(data_digest(rows.columns, rows.truth).encode())
        return digest.hexdigest()

    def _rows(self, frame: pl.DataFrame) -> LabelledRows:
        x, y = self._part(frame)
        columns = columns_of(x, inputs_of(list(x.columns), x, self.contract))
        return LabelledRows(columns, target_of(y, self.contract))

    def _part(self, frame: pl.DataFrame) -> tuple[Any, Array]:
        return frame_of(frame, self.contract), frame[self.contract.target.name].to_numpy()


def dataset(run: Run, contract: ModelContract, codec: Codec, outcomes: Iterable[Message]) -> Dataset:
    """The run's rows among the messages of ``LANE.outcomes``, which may hold more than those.

    One row for each request that was answered, whichever version answered; what scores in shadow is no answer. Of
    several revisions the last one known before the cut counts. Duplicates and what has no label are left out.

    Raises:
        TailraceError: fewer than ten rows are left.
        Unavailable: the registry is away.
    """
    until = dict(run.offsets)
    schema = _projection(contract)
    left_out: Counter[str] = Counter()
    latest: dict[str, dict[str, Any]] = {}
    for message in outcomes:
        if message.value() is None or message.offset() >= until.get(message.partition(), 0):
            continue
        try:
            outcome = codec.decode(message.value(), schema).record
        except BadRecord as bad:
            left_out[bad.code] += 1
            continue
        why = _outside(outcome, run)
        if why is not None:
            left_out[why] += 1
            continue
        before = latest.setdefault(outcome["prediction"]["prediction_id"], outcome)
        if outcome["revision"] != before["revision"]:
            left_out["corrected"] += 1
        if outcome["revision"] > before["revision"]:
            latest[outcome["prediction"]["prediction_id"]] = outcome
    rows = _Rows(contract)
    for outcome in sorted(latest.values(), key=_place):
        why = rows.add(outcome)
        if why is not None:
            left_out[why] += 1
    if len(rows.ids) < LEAST_ROWS:
        raise TailraceError(
            f"{len(rows.ids)} labelled rows are too few to train on ({LEAST_ROWS} are the least); left out: "
            f"{dict(sorted(left_out.items()))}"
        )
    return Dataset(contract, rows.frame(), tuple(rows.ids), dict(sorted(left_out.items())))


def _outside(outcome: dict[str, Any], run: Run) -> str | None:
    """Why an outcome is none of the run's, None where it is one."""
    prediction = outcome["prediction"]
    if prediction["model"] != run.model or prediction["role"] == "shadow":
        return "no answer of the model"
    if not run.window_start <= prediction["event_time"] < run.window_end:
        return "outside the window"
    if outcome["known_at"] >= run.cut:
        return "known after the cut"
    if outcome["duplicate_of"] is not None:
        return "duplicate"
    return None


def _place(outcome: dict[str, Any]) -> tuple[int, str, int, int]:
    prediction = outcome["prediction"]
    source = prediction["source"]
    return prediction["event_time"], source["topic"], source["partition"], source["offset"]


class _Rows:
    """Gathers outcomes as columns, each value as the model was given it."""

    def __init__(self, contract: ModelContract) -> None:
        self._contract = contract
        self._fields = contract.features | contract.context
        self._columns: dict[str, list[Any]] = {name: [] for name in (*self._fields, contract.target.name)}
        self.ids: list[str] = []

    def add(self, outcome: dict[str, Any]) -> str | None:
        """Adds a row, or says why not."""
        target = self._contract.target
        label = outcome["label"]
        if outcome["state"] == "unlabelled" or label is None:
            return "unlabelled"
        if target.type == "number" and not math.isfinite(label):
            return "label is not finite"
        if target.type != "number" and class_text(label, self._contract) not in self._contract.classes:
            return "label is no class of the contract"
        request = outcome["prediction"]["request"]
        values = {name: _value(field, request.get(name)) for name, field in self._fields.items()}
        for name, feature in self._contract.features.items():
            if feature.missing == "reject" and values[name] is None:
                return f"{name} is missing"
        for name, value in {**values, target.name: label}.items():
            self._columns[name].append(value)
        self.ids.append(outcome["prediction"]["prediction_id"])
        return None

    def frame(self) -> pl.DataFrame:
        types = {name: _DTYPES[field.type] for name, field in self._fields.items()}
        types[self._contract.target.name] = _DTYPES[self._contract.target.type]
        return pl.DataFrame(self._columns, schema=types)


def _value(field: Feature | ContextField, value: Any) -> Any:
    """None where it is missing, infinite, or a category that the contract in force has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if field.type == "category" and value is not None and value not in (field.categories or ()):
        return None if field.unseen == "reject" else field.unseen
    return value


def _projection(contract: ModelContract) -> dict[str, Any]:
    """The outcome's schema with no more fields than are needed here: the others are skipped, not decoded."""
    outcome, prediction = outcome_schema(contract), prediction_schema(contract)
    fields = [f for f in prediction["fields"] if f["name"] in _PREDICTION]
    nested = {"name": "prediction", "type": {**prediction, "fields": fields}}
    return {**outcome, "fields": [*(f for f in outcome["fields"] if f["name"] in _OUTCOME), nested]}


def days(milliseconds: int) -> str:
    """A day, for people."""
    return str(np.datetime64(milliseconds, "ms").astype("datetime64[D]"))
