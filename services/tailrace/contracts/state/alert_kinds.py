"""The kinds of alert: which services raise each, and when. docs/metrics.md prints the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tailrace.signing.signers import DRIFT, EVALUATOR, ROLLOUT, SCORER, SERVICES, SHADOW_SCORER, TRAINER


class AlertKind(NamedTuple):
    """Attributes:
    name: stable, for machines.
    services: who raises it; each signs with its own key alone.
    when: a clause for people, in Markdown.
    """

    name: str
    services: tuple[str, ...]
    when: str


_KINDS = (
    AlertKind("drift", (DRIFT,), "a closed window differs from the training data"),
    AlertKind(
        "quality-drop",
        (EVALUATOR,),
        "a closed, mature window is worse than the holdout by more than `quality.drop`",
    ),
    AlertKind(
        "fallback-share",
        (EVALUATOR,),
        "the fallback answered more of a closed window's requests than `rollout.back_if.fallback_share`, "
        "`1 - service_levels.answered` or a phrase `fallback share over N%` of `alerts.severe` bears",
    ),
    AlertKind(
        "latency-level",
        (EVALUATOR,),
        "more than 1 % of a closed window's answers took longer than `service_levels.latency_p99`, by "
        "`latency_ms`, which runs from the reading of a request to its answer",
    ),
    AlertKind(
        "dead-letter-share",
        (SCORER,),
        "of 1,000 requests of a partition, in the order of the log, more became dead letters than "
        "`1 - service_levels.answered` or a phrase `dead-letter share over N%` of `alerts.severe` bears; on a "
        "shared lane the least of what its contracts bear",
    ),
    AlertKind(
        "version-quarantined",
        (SCORER, SHADOW_SCORER),
        "two processes died with the version in flight, and none without it",
    ),
    AlertKind(
        "requests-wait",
        (SCORER,),
        "requests to a model have no answer until a person does something: it has no version, the champion's package "
        "was refused, or the champion cannot serve under the contract; resolved when they go on",
    ),
    AlertKind(
        "retraining-held",
        (TRAINER,),
        "the model is frozen, and a training run is due; resolved when the run is planned, or nothing is due any more",
    ),
    AlertKind("package-refused", (ROLLOUT, SCORER, SHADOW_SCORER), "a package does not pass a check"),
    AlertKind("shadow-failed", (SHADOW_SCORER,), "a version in shadow has no prediction for a row"),
    AlertKind("promotion-waits", (ROLLOUT,), "a person is to promote a version"),
    AlertKind("rolled-back", (ROLLOUT,), "a version was taken back"),
    AlertKind("command-refused", (ROLLOUT, TRAINER), "a command is not carried out"),
    AlertKind(
        "training-failed",
        (TRAINER,),
        "a training run ended without a candidate, with the reason; resolved by a later run of the model that does not",
    ),
    AlertKind(
        "rollback-refused",
        (ROLLOUT,),
        "the champion should be taken back, and nobody who is trusted any more has signed the version before it: a "
        "person decides",
    ),
    AlertKind(
        "record-refused",
        (ROLLOUT,),
        "a record of a control topic counts for nothing: it cannot be read, nobody who may has signed it, or it is "
        "a copy ([keys.md](keys.md)); severe, once for each of the first ten of a topic and hour, then for the "
        "16th, the 32nd and so on",
    ),
    AlertKind("quarantined", SERVICES, "a message stops the service, and was left out"),
)

ALERT_KINDS: Mapping[str, AlertKind] = {kind.name: kind for kind in _KINDS}


def as_table() -> str:
    """The table in Markdown."""
    lines = ["| kind | from | when |", "| --- | --- | --- |"]
    for kind in ALERT_KINDS.values():
        services = "any service" if kind.services == SERVICES else ", ".join(kind.services)
        lines.append(f"| `{kind.name}` | {services} | {kind.when} |")
    return "\n".join(lines)
