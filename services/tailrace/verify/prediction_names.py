"""Whether what a prediction names exists: its version, its contract, its rollout revision, and its own id."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.contracts.state.contracts import Contracts
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import RecordRef
from tailrace.verify.check import AccountProblem
from tailrace.verify.decisions import Decisions
from tailrace.verify.prediction_header import PredictionHeader


def name_problems(
    at: RecordRef, header: PredictionHeader, contracts: Contracts, decisions: Decisions
) -> Iterator[AccountProblem]:
    """What a prediction names that is not there.

    Args:
        header: as `PredictionHeaders.read` gives it.
    """
    model, version, role = header["model"], header["version"], header["role"]
    published = decisions.versions.get((model, version))
    if published is None or published.digest != header["artifact_digest"]:
        detail = f"{model} version {version} ({header['artifact_digest'][:12]}) was never published"
        yield AccountProblem("unpublished", *at, detail)
    applied = contracts.by_digest.get(header["contract_digest"])
    if applied is None or applied.model != model:
        detail = f"contract {header['contract_digest'][:12]} of {model} was never in force"
        yield AccountProblem("unapplied", *at, detail)
    revision = header["rollout_revision"]
    if (model, revision) not in decisions.revisions:
        yield AccountProblem("unrolled", *at, f"{model} has no rollout revision {revision}")
    elif not decisions.answers(model, revision, role, version):
        detail = f"version {version} of {model} is not {role} in revision {revision}"
        yield AccountProblem("unrolled", *at, detail)
    if header["prediction_id"] != prediction_id(role, RecordRef(**header["source"]), version):
        detail = f"prediction_id {header['prediction_id']} is not that of its role, source and version"
        yield AccountProblem("misnamed", *at, detail)
