"""The way of some requests of one model: check, fill, score, choose, write. Each step is a file of its
own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.decoder import Column, Ints
from tailrace.errors import BadRecord
from tailrace.models.columns import Array
from tailrace.models.predictions import Predictions
from tailrace.scorer.batch import Batch
from tailrace.scorer.calibrate import calibrate
from tailrace.scorer.contract_steps import steps_of
from tailrace.scorer.domain_guard import note_domain
from tailrace.scorer.event import AnswerIdentity, ScoredAnswers, encode_events
from tailrace.scorer.fallback import FallbackAnswers, VersionAnswer
from tailrace.scorer.fill_missing import fill_missing
from tailrace.scorer.findings import Finding, Findings
from tailrace.scorer.output_guard import broken_outputs
from tailrace.scorer.policy import Choice
from tailrace.scorer.route import Route
from tailrace.scorer.rows import CheckedRows, Requests
from tailrace.scorer.score import score
from tailrace.scorer.uncertainty import note_uncertainty
from tailrace.scorer.versions import Serving, ServingVersion, VersionRef
from tailrace.streaming.ids import REQUEST_ID, id_role
from tailrace.streaming.processor import Clock
from tailrace.streaming.records import RecordRef


def check(work: Batch, requests: Requests) -> CheckedRows:
    """The requests that keep the contract; what is wrong with the others is noted in the work."""
    plan = requests.plan
    times, appended = requests.event_times(work.append_times)
    found = steps_of(plan).check.run(requests.columns, times, appended)
    for row, bad in found.bad.items():
        work.bad[int(requests.at[row])] = bad
    at, columns = requests.at, requests.columns
    sources = work.topics[int(at[0])], work.partition_numbers[at], work.offset_numbers[at]
    ids = keys = _effective(columns[REQUEST_ID].values, *sources)
    if plan.contract.key.name != REQUEST_ID:
        keys = _effective(_texts(columns[plan.contract.key.name]), *sources)
    rows = CheckedRows(
        plan, at, requests.values, ids, keys, times, found.columns, found.replaced, found.impute
    )
    return rows.take(_without(found.bad, len(rows))) if found.bad else rows


def answer(
    work: Batch,
    rows: CheckedRows,
    route: Route,
    serving: Serving,
    runtime: Mapping[str, str],
    clock: Clock,
    previous: ServingVersion | None = None,
    without: Finding | None = None,
) -> dict[int, BadRecord]:
    """Adds the predictions of a version for the rows that go to it to the work's records; why it has none for
    others, by position in the batch.

    Where the contract has a fallback chain, it answers instead of a version that fails or whose answer cannot be
    used, under the version's name and role. ``previous`` is whom it may ask. A shadow answers nobody, so that it
    has no fallback.

    ``without`` is why the version is not to be run at all. The chain answers then; where there is none, ``previous``
    does, which there is.
    """
    version, received = route.version, rows.take(route.rows)
    named = VersionRef(version.number, version.model.digest)
    identity = replace(
        _identity(received, named, serving, route.role, runtime),
        arm=route.arm,
        arm_propensity=route.propensity,
    )
    plan, notes = received.plan, Findings(len(received))
    steps = steps_of(plan)
    if without is not None:
        why = dict.fromkeys(range(len(received)), without)
        if steps.fallback:
            _fall_back(work, received, notes, why, identity, previous, clock)
            return {}
        assert previous is not None
        version = previous
        identity = replace(identity, served_by="previous", served_cause=without.guard)
        notes.add(why)
        notes.add(dict.fromkeys(why, _who(version)))
    rows = fill_missing(received, version.model)
    guardrails = plan.contract.guardrails
    note_domain(notes, rows, version.model, guardrails.domain)
    began = clock.perf_ns()
    found = score(version.model, rows.columns, len(rows))
    work.time(plan.model, version.number, (clock.perf_ns() - began) / 1e6, len(rows))
    outputs = found.outputs
    broken = broken_outputs(outputs, guardrails.score)
    lost = {row: Finding("model", None, why) for row, why in found.failed.items()}
    failed: dict[int, BadRecord] = {}
    if steps.fallback and route.role != "shadow":
        lost = broken | lost
        if lost:
            _fall_back(work, received, notes, lost, identity, previous, clock)
    else:
        notes.add({row: finding for row, finding in broken.items() if row not in lost}, "guarded")
        failed = {int(rows.at[row]): BadRecord("model-failed", why) for row, why in found.failed.items()}
    if lost:
        good = _without(lost, len(rows))
        rows, outputs, notes = rows.take(good), outputs.take(good), notes.take(good)
    if not len(rows):
        return failed
    outputs = calibrate(outputs, version.model)
    note_uncertainty(notes, outputs, version.model, guardrails.coverage)
    choices = steps.policy.choose(rows.columns, outputs, len(rows), notes.flags)
    explored = steps.exploration.turn(choices, outputs, *_sources(work, rows))
    answers = _answers(work, rows, outputs, notes, explored.choices, explored.options, clock)
    answers.propensities = explored.propensities
    if route.role != "shadow":
        answers.explanations = steps.explanations.of(version.model, rows.columns, answers)
    _write(work, rows, identity, answers)
    return failed


def _fall_back(
    work: Batch,
    rows: CheckedRows,
    notes: Findings,
    lost: Mapping[int, Finding],
    identity: AnswerIdentity,
    previous: ServingVersion | None,
    clock: Clock,
) -> None:
    """Has the chain answer the rows that the version lost, each with what was found; the cause is the guard's name."""
    chain = steps_of(rows.plan).fallback
    ask = None if previous is None else partial(_ask, previous)
    for cause in sorted({finding.guard for finding in lost.values()}):
        at = np.array(sorted(row for row, finding in lost.items() if finding.guard == cause), dtype=np.int64)
        noted = notes.take(at)
        noted.add({place: lost[row] for place, row in enumerate(at.tolist())})
        for group in chain.answer(rows.take(at), noted, ask):
            _write_group(work, group, replace(identity, served_by=group.served_by, served_cause=cause), clock)


def _ask(version: ServingVersion, rows: CheckedRows, notes: Findings) -> VersionAnswer:
    """What a version says in the place of another one, under the same guards."""
    guardrails = rows.plan.contract.guardrails
    rows = fill_missing(rows, version.model)
    found = score(version.model, rows.columns, len(rows))
    lost = broken_outputs(found.outputs, guardrails.score).keys() | found.failed.keys()
    good = _without(lost, len(rows))
    rows, outputs, notes = rows.take(good), found.outputs.take(good), notes.take(good)
    outputs = calibrate(outputs, version.model)
    notes.add(dict.fromkeys(range(len(good)), _who(version)))
    note_uncertainty(notes, outputs, version.model, guardrails.coverage)
    return VersionAnswer(good, rows, outputs, notes)


def _who(version: ServingVersion) -> Finding:
    """Says which version answers in the place of another one."""
    return Finding("previous", None, f"version {version.number}, {version.model.digest}")


def answer_off(
    work: Batch,
    rows: CheckedRows,
    champion: VersionRef,
    serving: Serving,
    runtime: Mapping[str, str],
    clock: Clock,
) -> None:
    """Adds what the contract's fallback says in the place of a champion that is switched off."""
    off = _identity(rows, champion, serving, "champion", runtime)
    for group in steps_of(rows.plan).fallback.answer(rows, Findings(len(rows))):
        _write_group(work, group, replace(off, served_by=group.served_by, served_cause="off"), clock)


def _write_group(work: Batch, group: FallbackAnswers, identity: AnswerIdentity, clock: Clock) -> None:
    some = group.outputs, group.notes, group.choices, group.options
    _write(work, group.rows, identity, _answers(work, group.rows, *some, clock))


def _write(work: Batch, rows: CheckedRows, identity: AnswerIdentity, answers: ScoredAnswers) -> None:
    work.write(rows.at, encode_events(identity, answers))
    work.answered.append((rows.at, identity, answers))


def _identity(
    rows: CheckedRows, version: VersionRef, serving: Serving, role: str, runtime: Mapping[str, str]
) -> AnswerIdentity:
    plan = rows.plan
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
    )


def _answers(
    work: Batch,
    rows: CheckedRows,
    outputs: Predictions,
    notes: Findings,
    choices: Array,
    options: Sequence[Choice],
    clock: Clock,
) -> ScoredAnswers:
    topic, partitions, offsets = _sources(work, rows)
    return ScoredAnswers(
        topic=topic,
        partitions=partitions,
        offsets=offsets,
        request_ids=rows.ids,
        keys=rows.keys,
        event_times=rows.event_times,
        bodies=rows.bodies,
        outputs=outputs,
        choices=choices,
        options=options,
        latency_ms=(clock.perf_ns() - work.started_ns) / 1e6,
        notes=notes,
        replaced=rows.replaced,
    )


def _sources(work: Batch, rows: CheckedRows) -> tuple[str, Ints, Ints]:
    """The topic, and by row partition and offset."""
    return work.topics[int(rows.at[0])], work.partition_numbers[rows.at], work.offset_numbers[rows.at]


def _without(rows: Collection[int], of: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    left = np.ones(of, dtype=np.bool_)
    left[list(rows)] = False
    return np.flatnonzero(left)


def _texts(column: Column) -> BytesColumn | Sequence[bytes | None]:
    """The canonical texts of a key column."""
    if isinstance(column.values, BytesColumn):
        return column.values
    texts: list[bytes | None] = [b"%d" % number for number in column.values.tolist()]
    if column.present is not None:
        texts = [text if there else None for text, there in zip(texts, column.present.tolist(), strict=True)]
    return texts


def _effective(
    values: BytesColumn | Sequence[bytes | None], topic: str, partitions: Ints, offsets: Ints
) -> BytesColumn:
    """Ids or keys, with the request's coordinates where there is none."""
    if isinstance(values, BytesColumn) and (values.ends > values.begins).all() and (values.begins >= 0).all():
        return values
    sources = zip(partitions.tolist(), offsets.tolist(), strict=True)
    return BytesColumn.of(
        [
            value or str(RecordRef(topic, partition, offset)).encode()
            for value, (partition, offset) in zip(values, sources, strict=True)
        ]
    )
