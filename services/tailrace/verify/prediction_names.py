"""Whether what a prediction names exists: its version, its contract, its rollout revision, and its own id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tailrace.contracts.state.contracts import Contracts
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import RecordRef
from tailrace.verify.check import AccountProblem
from tailrace.verify.decisions import Decisions


def name_problems(
    at: RecordRef, head: Mapping[str, Any], contracts: Contracts, decisions: Decisions
) -> Iterator[AccountProblem]:
    """What a prediction names that is not there.

    Args:
        head: as `Heads.read` gives it.
    """
    model, version, role = head["model"], head["version"], head["role"]
    published = decisions.versions.get((model, version))
    if published is None or published.digest != head["artifact_digest"]:
        detail = f"{model} version {version} ({head['artifact_digest'][:12]}) was never published"
        yield AccountProblem("unpublished", *at, detail)
    applied = contracts.by_digest.get(head["contract_digest"])
    if applied is None or applied.model != model:
        detail = f"contract {head['contract_digest'][:12]} of {model} was never in force"
        yield AccountProblem("unapplied", *at, detail)
    revision = head["rollout_revision"]
    if (model, revision) not in decisions.revisions:
        yield AccountProblem("unrolled", *at, f"{model} has no rollout revision {revision}")
    elif not decisions.answers(model, revision, role, version):
        detail = f"version {version} of {model} is not {role} in revision {revision}"
        yield AccountProblem("unrolled", *at, detail)
    if head["prediction_id"] != prediction_id(role, RecordRef(**head["source"]), version):
        detail = f"prediction_id {head['prediction_id']} is not that of its role, source and version"
        yield AccountProblem("misnamed", *at, detail)
