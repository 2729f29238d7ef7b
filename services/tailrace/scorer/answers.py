"""Answers: what came of requests, and what is the same in all events of a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.decoder import Ints
from tailrace.models.columns import Array
from tailrace.models.predictions import Predictions
from tailrace.scorer.rows import Findings, Replaced


class Contribution(NamedTuple):
    feature: str
    contribution: float


class Choice(NamedTuple):
    """A rule of the policy; ``action`` None is the predicted class."""

    action: str | None
    rule: str | None


@dataclass(frozen=True)
class Unscored(Predictions):
    """An answer without a number: the name of a class, or nothing."""

    named: str | None = None


@dataclass(frozen=True)
class AnswerIdentity:
    """What is the same for all events of a batch of one version. ``id_role`` goes into the ids.

    ``served_by`` is who answered in the version's place, and ``served_cause`` why. ``arm_propensity`` is the
    probability with which the version was chosen, as ``arm`` where it is one of an experiment.
    """

    schema_id: int
    topic: str
    model: str
    version: int
    artifact_digest: str
    contract_digest: str
    rollout_revision: int
    runtime: Mapping[str, str]
    role: str
    id_role: str
    served_by: str = "model"
    served_cause: str | None = None
    arm_propensity: float = 1.0
    arm: str | None = None


@dataclass
class ScoredAnswers:
    """Some requests of one model and what came of them, row by row.

    ``request_ids`` and ``keys`` are UTF-8, the effective ones; ``bodies`` are requests in wire format in the
    schema that the prediction nests; ``choices`` index ``options``, and ``propensities`` are with what probability
    each of these was to be chosen for such a request: 1 where there are none.
    """

    topic: str
    partitions: Ints
    offsets: Ints
    request_ids: BytesColumn
    keys: BytesColumn
    event_times: Ints
    bodies: BytesColumn
    outputs: Predictions
    choices: Array
    options: Sequence[Choice]
    latency_ms: float
    findings: Findings
    replaced: Mapping[int, Sequence[Replaced]] = field(default_factory=dict)
    explanations: Mapping[int, Sequence[Contribution]] = field(default_factory=dict)
    propensities: Sequence[float] = ()
