"""Which records decide, who signs them, who checks that, and why a copy of one counts for nothing.

A kind of record that decides is an entry here, and nothing else has to know of it: what is written by
`ControlRecords.record` is signed, and what is read by `ControlRecords.read` is checked, by this table.
docs/keys.md prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tailrace.contracts.records import lanes
from tailrace.contracts.state import checks
from tailrace.contracts.state.contracts import RELEASE
from tailrace.signing.signers import (
    CLOCK,
    DRIFT,
    EVALUATOR,
    JOINER,
    OWNER,
    PUBLISHER,
    ROLLOUT,
    SCORER,
    SERVICES,
    SHADOW_SCORER,
    SINK,
    TRAINER,
)


@dataclass(frozen=True)
class RecordKind:
    """A kind of record that decides.

    Attributes:
        name: of its schema.
        topic: where it stands.
        signers: whose keys it may be signed with.
        checked_by: who believes no record whose signature does not count.
        copy: why a copy at another place counts for nothing.
        check: what a record is held against beyond its schema.
        signature: ``header``, see signing/records.py; ``field`` where the record carries its own.
    """

    name: str
    topic: str
    signers: tuple[str, ...]
    checked_by: tuple[str, ...]
    copy: str
    check: checks.Check | None = None
    signature: Literal["header", "field"] = "header"


_FOLLOWS = "names the revision that it follows, which is past"
_FIRST = "of the same record the first counts"
COMMAND_LINE = "the command line"

_EVERYBODY = (SCORER, SHADOW_SCORER, JOINER, DRIFT, EVALUATOR, TRAINER, ROLLOUT, SINK, CLOCK, COMMAND_LINE)
_PACKAGE_READERS = (SCORER, SHADOW_SCORER, DRIFT, EVALUATOR, TRAINER, ROLLOUT, COMMAND_LINE)
_ROLLOUT_READERS = (SCORER, SHADOW_SCORER, TRAINER, ROLLOUT, COMMAND_LINE)
_CLOCK_READERS = (SCORER, SHADOW_SCORER, CLOCK, ROLLOUT, COMMAND_LINE)
_REPORT_READERS = (ROLLOUT, TRAINER, COMMAND_LINE)
_PUBLISHERS = (OWNER, PUBLISHER, TRAINER)
_ONCE, _DECIDED = "a version is published once", "a command of that id was decided before"

_TABLE = (
    RecordKind("Contract", lanes.CONTRACTS, (OWNER, ROLLOUT), _EVERYBODY, _FOLLOWS, checks.check_contract),
    RecordKind("Rollout", lanes.ROLLOUTS, (ROLLOUT,), _ROLLOUT_READERS, _FOLLOWS, checks.check_rollout),
    RecordKind("Clock", lanes.CLOCKS, (OWNER, CLOCK), _CLOCK_READERS, _FOLLOWS, checks.check_clock),
    RecordKind("ModelManifest", lanes.MANIFESTS, _PUBLISHERS, _PACKAGE_READERS, _ONCE, signature="field"),
    RecordKind(
        "Command", lanes.COMMANDS, (OWNER, PUBLISHER), (ROLLOUT, TRAINER), _DECIDED, signature="field"
    ),
    RecordKind("Alert", lanes.ALERTS, SERVICES, _REPORT_READERS, _FIRST, checks.check_alert),
    RecordKind("PerformanceReport", lanes.PERFORMANCE_REPORTS, (EVALUATOR,), _REPORT_READERS, _FIRST),
    RecordKind("DriftReport", lanes.DRIFT_REPORTS, (DRIFT,), (ROLLOUT, TRAINER), _FIRST),
    RecordKind("TrainingRun", lanes.TRAINING_RUNS, (TRAINER,), _REPORT_READERS, _FIRST, checks.check_run),
)

KINDS = {kind.name: kind for kind in _TABLE}
"""The kinds of record that decide, by the names of their schemas."""


def signers_of(kind: RecordKind, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Who may sign this record of the kind: an alert counts as the word of the service that it names, and the rollout
    service brings no contract into force but what the owner has held.
    """
    if kind.name == "Alert":
        return (record["service"],)
    if kind.name == "Contract":
        return (ROLLOUT,) if record["step"] == RELEASE else (OWNER,)
    return kind.signers


KIND_OF_TOPIC = {kind.topic: kind for kind in KINDS.values()}

BY_ACCESS_ALONE = {
    lanes.CHUNKS: "parts of packages; the manifest that is signed names their digests",
    lanes.WINDOW_PARTS: "what drift and evaluator have counted",
    lanes.WINDOW_STATE: "what drift and evaluator remember between windows",
    "LANE.requests": "what applications ask",
    "LANE.predictions": "what the scorer has answered",
    "LANE.shadow-predictions": "what the shadow scorer would have answered",
    "LANE.labels": "what applications know of the truth",
    "LANE.actions": "what people did",
    "LANE.rekeyed": "the joiner's own",
    "LANE.outcomes": "what the joiner has matched",
    "LANE.dead-letters": "what could not be processed",
}
"""Topics whose records nobody signs: the broker's access control alone says who writes them, and what they hold."""
