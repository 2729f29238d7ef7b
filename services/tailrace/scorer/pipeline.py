"""How some requests of one model are answered: `SCORING_STEPS`, from top to bottom, each a function of steps/.

A step reads and changes `RoutedRows`. Where a version does not answer, the contract's fallback does, by shorter tuples
of the same steps in a context of its own (steps/fallback.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tailrace.contracts.language.guards.guard import Finding
from tailrace.scorer.answers import AnswerIdentity
from tailrace.scorer.batch import Batch
from tailrace.scorer.routed_rows import RoutedRows, Step, run_steps
from tailrace.scorer.rows import CheckedRows, Findings
from tailrace.scorer.steps.event import gather_answers, write_events
from tailrace.scorer.steps.explain import explain_answers
from tailrace.scorer.steps.fallback import answer_instead, fall_back, note_stand_in, run_chain
from tailrace.scorer.steps.guards import inspect_outputs, inspect_rows, note_certainty
from tailrace.scorer.steps.model import calibrate, fill_in, run_timed
from tailrace.scorer.steps.policy import choose_action, explore
from tailrace.scorer.steps.route import Route
from tailrace.scorer.versions import Serving, ServingVersion, VersionRef
from tailrace.streaming.ids import id_role
from tailrace.streaming.processor import Clock

SCORING_STEPS: tuple[Step, ...] = (
    fill_in,
    inspect_rows,
    run_timed,
    inspect_outputs,
    fall_back,
    calibrate,
    note_certainty,
    choose_action,
    explore,
    gather_answers,
    explain_answers,
    write_events,
)


def answer(
    batch: Batch,
    rows: CheckedRows,
    route: Route,
    serving: Serving,
    runtime: Mapping[str, str],
    clock: Clock,
    previous: ServingVersion | None = None,
    without: Finding | None = None,
) -> None:
    """Adds to the batch what a version predicts for the rows that go to it, or why it does not.

    Args:
        previous: whom the fallback may ask.
        without: why the version is not to be run at all. The chain answers then; where there is none, ``previous``
            does, which there is.
    """
    version, received = route.version, rows.take(route.rows)
    named = VersionRef(version.number, version.model.digest)
    identity = _identity(received, named, serving, route, runtime)
    routed = RoutedRows(batch, clock, received, identity, Findings(len(received)), version, previous)
    if without is not None:
        why = dict.fromkeys(range(len(received)), without)
        if routed.plan.has_fallback:
            answer_instead(routed, why)
            return
        routed = routed.part(np.arange(len(received)), served_by="previous", served_cause=without.guard)
        routed.version = previous
        routed.findings.add(why)
        note_stand_in(routed)
    run_steps(SCORING_STEPS, routed)


def answer_off(
    batch: Batch,
    rows: CheckedRows,
    champion: VersionRef,
    serving: Serving,
    runtime: Mapping[str, str],
    clock: Clock,
) -> None:
    """Adds what the contract's fallback says in the place of a champion that is switched off."""
    identity = _identity(rows, champion, serving, None, runtime)
    run_chain(RoutedRows(batch, clock, rows, identity, Findings(len(rows))))


def _identity(
    rows: CheckedRows, version: VersionRef, serving: Serving, route: Route | None, runtime: Mapping[str, str]
) -> AnswerIdentity:
    """Of what goes that way; without one, of what is answered while the model is off."""
    plan, role = rows.plan, "champion" if route is None else route.role
    return AnswerIdentity(
        schema_id=plan.prediction_schema_id,
        topic=plan.topic,
        model=plan.model,
        version=version.number,
        artifact_digest=version.digest,
        contract_digest=plan.applied.digest,
        rollout_revision=serving.revision,
        runtime=runtime,
        role=role,
        id_role=id_role(role, version.number),
        served_cause="off" if route is None else None,
        arm=None if route is None else route.arm,
        arm_propensity=1.0 if route is None else route.propensity,
    )
