"""The last step: prediction events in wire format.

An event is put together from pieces of Avro in the order of the schema's fields: what is the same for many rows of a
batch is encoded once, and the request's bytes are copied as they are. The reference is fastavro: tests hold
the two equal, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tailrace.avro.codec import HEADER, MAGIC
from tailrace.avro.columns.decoder import Mask
from tailrace.avro.columns.numbering import distinct_numbers
from tailrace.avro.columns.splice import Matrix, Splice
from tailrace.avro.encoding import NULL, SOME, double, long, text
from tailrace.contracts.language.guards.guard import Finding
from tailrace.models.columns import Array
from tailrace.models.guards.prediction_sets import PredictionSets, Uncertainty
from tailrace.models.predictions import Predictions
from tailrace.scorer.answers import AnswerIdentity, Choice, Contribution, ScoredAnswers, Unscored
from tailrace.scorer.routed_rows import RoutedRows
from tailrace.scorer.rows import Replaced
from tailrace.streaming.records import Records

_END = b"\x00"
"""Of an array or a map."""


def gather_answers(routed: RoutedRows) -> None:
    """Takes the time: from here on the rows are answered."""
    batch, rows = routed.batch, routed.rows
    routed.answers = ScoredAnswers(
        *batch.sources(rows.at),
        request_ids=rows.ids,
        keys=rows.keys,
        event_times=rows.event_times,
        bodies=rows.bodies,
        outputs=routed.outputs,
        choices=routed.choices,
        options=routed.options,
        latency_ms=(routed.clock.perf_ns() - batch.started_ns) / 1e6,
        findings=routed.findings,
        replaced=rows.replaced,
        propensities=routed.propensities,
    )


def write_events(routed: RoutedRows) -> None:
    """Adds the prediction events to the batch."""
    answers, at = routed.answers, routed.rows.at
    routed.batch.write(at, encode_events(routed.identity, answers))
    routed.batch.answered.append((at, routed.identity, answers))


def encode_events(of: AnswerIdentity, answers: ScoredAnswers) -> Records:
    """The prediction records, keyed by the canonical text of the contract's key field."""
    rows = len(answers.bodies)
    partitions, which = distinct_numbers(answers.partitions)
    leads = [f"{of.id_role}:{answers.topic}/{p}/".encode() for p in partitions.tolist()]
    event = Splice(rows)
    event.same(HEADER.pack(MAGIC, of.schema_id))
    event.numbered(leads, which, answers.offsets)
    event.texts(answers.request_ids)
    event.texts(answers.keys)
    event.longs(answers.event_times)
    event.one_of([text(answers.topic) + long(p) for p in partitions.tolist()], which)
    event.longs(answers.offsets)
    event.same(
        text(of.model)
        + long(of.version)
        + text(of.artifact_digest)
        + text(of.contract_digest)
        + long(of.rollout_revision)
        + _map((name, text(value)) for name, value in of.runtime.items())
        + text(of.role)
        + _optional(of.arm)
        + text(of.served_by)
        + _optional(of.served_cause)
    )
    event.stretches(answers.bodies, HEADER.size)
    _add_some(event, rows, _END, _replacements(answers.replaced))
    event.matrix(_numbers(answers.outputs, rows))
    _add_decisions(event, answers, double(of.arm_propensity))
    findings = answers.findings
    event.one_of([_items(list(map(_finding, kind))) for kind in findings.kinds], findings.which)
    event.matrix(_booleans(findings.flags.get("guarded"), rows))
    _add_uncertainty(event, findings.uncertainty)
    _add_some(event, rows, NULL, {row: _explanation(of) for row, of in answers.explanations.items()})
    event.same(double(answers.latency_ms))
    return Records(of.topic, event.finish(), answers.keys)


def _map(items: Iterable[tuple[str, bytes]]) -> bytes:
    return _items([text(name) + value for name, value in items])


def _items(written: Sequence[bytes]) -> bytes:
    """An array, or a map."""
    return (long(len(written)) + b"".join(written) if written else b"") + _END


def _optional(value: str | None) -> bytes:
    return NULL if value is None else SOME + text(value)


def _add_some(event: Splice, rows: int, usual: bytes, others: Mapping[int, bytes]) -> None:
    """Adds what is usual to every row, but for those that have another one."""
    if not others:
        event.same(usual)
        return
    numbers = {data: number for number, data in enumerate(dict.fromkeys((usual, *others.values())))}
    which = np.zeros(rows, dtype=np.int64)
    which[list(others)] = [numbers[data] for data in others.values()]
    event.one_of(list(numbers), which)


def _replacements(replaced: Mapping[int, Sequence[Replaced]]) -> dict[int, bytes]:
    by_row = {row: tuple(values) for row, values in replaced.items()}
    written = {
        values: _items([text(r.field) + _optional(r.value) + text(r.reason) for r in values])
        for values in set(by_row.values())
    }
    return {row: written[values] for row, values in by_row.items()}


def _finding(finding: Finding) -> bytes:
    return text(finding.guard) + _optional(finding.field) + text(finding.detail)


def _booleans(flags: Mask | None, rows: int) -> Matrix:
    column = np.zeros(rows, dtype=np.uint8) if flags is None else flags.view(np.uint8)
    return column[:, np.newaxis]


def _add_uncertainty(event: Splice, uncertainty: Uncertainty | None) -> None:
    """Adds coverage, set, and both ends of the interval."""
    if uncertainty is None:
        event.same(NULL + NULL + NULL + NULL)
        return
    coverage = SOME + double(uncertainty.coverage)
    if isinstance(uncertainty, PredictionSets):
        sets = [SOME + _items(list(map(text, names))) for names in uncertainty.sets]
        event.same(coverage)
        event.one_of(sets, uncertainty.which)
        event.same(NULL + NULL)
    else:
        ends = np.column_stack([uncertainty.low, uncertainty.high])
        event.matrix(_filled([coverage + NULL + SOME, SOME, b""], ends))


def _explanation(contributions: Sequence[Contribution]) -> bytes:
    return SOME + _items([text(feature) + double(share) for feature, share in contributions])


def _numbers(outputs: Predictions, rows: int) -> Matrix:
    """score, and probabilities, by row; the value of a regression stands in its decisions."""
    if outputs.probabilities is None:
        return _filled([NULL + _END], np.empty((rows, 0)))
    if outputs.score is not None:
        return _filled([SOME, _END], outputs.score[:, np.newaxis])
    names = [text(name) for name in outputs.classes]
    return _filled([NULL + long(len(names)) + names[0], *names[1:], _END], outputs.probabilities)


def _filled(between: Sequence[bytes], numbers: Array) -> Matrix:
    """By row, its doubles with the same bytes before, between and behind them."""
    blank = np.frombuffer((b"\0" * 8).join(between), dtype=np.uint8)
    filled = np.tile(blank, (len(numbers), 1))
    at = 0
    for column, before in enumerate(between[:-1]):
        at += len(before)
        values = np.ascontiguousarray(numbers[:, column], dtype="<f8")
        filled[:, at : at + 8] = values.view(np.uint8).reshape(-1, 8)
        at += 8
    return filled


def _add_decisions(event: Splice, answers: ScoredAnswers, arm_propensity: bytes) -> None:
    """Adds predicted class, value, action, rule and both propensities."""
    options, outputs = answers.options, answers.outputs
    propensities = answers.propensities or [1.0] * len(options)
    ends = [double(propensity) + arm_propensity for propensity in propensities]
    pairs = list(zip(options, ends, strict=True))
    if outputs.value is not None:
        event.matrix(_filled([NULL + SOME, b""], outputs.value[:, np.newaxis]))
        event.one_of([_action("", option) + end for option, end in pairs], answers.choices)
        return
    names: Sequence[str | None] = outputs.classes
    if outputs.most_probable is None:
        names = [outputs.named if isinstance(outputs, Unscored) else None]
    # There are few pairs of class and choice.
    decisions = [_optional(n) + NULL + _action(n or "", option) + end for n in names for option, end in pairs]
    classes = 0 if outputs.most_probable is None else outputs.most_probable
    event.one_of(decisions, classes * len(options) + answers.choices)


def _action(predicted_class: str, option: Choice) -> bytes:
    return text(predicted_class if option.action is None else option.action) + _optional(option.rule)
