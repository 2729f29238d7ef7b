"""The last step: prediction events in wire format.

An event is put together from pieces of Avro in the order of the schema's fields: what is the same for a whole
batch is encoded once, and the request's bytes are copied as they are. The reference is fastavro: tests hold
the two equal, byte for byte.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tailrace.kit.avro_columns import Ints
from tailrace.kit.codec import HEADER, MAGIC
from tailrace.kit.messages import Record
from tailrace.models.columns import Array
from tailrace.models.load import Predictions
from tailrace.scorer.notes import Contribution, Finding
from tailrace.scorer.policy import Choice, Unscored
from tailrace.scorer.rows import Replaced

FIELDS = [
    "prediction_id",
    "request_id",
    "key",
    "event_time",
    "source",
    "model",
    "version",
    "artifact_digest",
    "contract_digest",
    "rollout_revision",
    "runtime",
    "role",
    "arm",
    "served_by",
    "served_cause",
    "request",
    "replaced",
    "score",
    "probabilities",
    "predicted_class",
    "value",
    "action",
    "rule",
    "action_propensity",
    "arm_propensity",
    "guardrails",
    "explanation",
    "latency_ms",
]
"""The fields of the prediction schema in the order in which they are written here."""

_NULL, _SOME, _NONE = b"\x00", b"\x02", b"\x00"
_ID_DIGITS = 32


@dataclass(frozen=True)
class Identity:
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
class Answers:
    """Some requests of one model and what came of them, row by row.

    ``request_ids`` and ``keys`` are UTF-8, the effective ones; ``bodies`` are requests in wire format in the
    schema that the prediction nests; ``choices`` index ``options``, and ``propensities`` are with what probability
    each of these was to be chosen for such a request: 1 where nothing is said.
    """

    topic: str
    partitions: list[int]
    offsets: list[int]
    request_ids: Sequence[bytes]
    keys: Sequence[bytes]
    event_times: Ints
    bodies: Sequence[bytes]
    outputs: Predictions
    choices: Array
    options: Sequence[Choice]
    latency_ms: float
    replaced: Mapping[int, Sequence[Replaced]] = field(default_factory=dict)
    findings: Mapping[int, Sequence[Finding]] = field(default_factory=dict)
    explanations: Mapping[int, Sequence[Contribution]] = field(default_factory=dict)
    propensities: Sequence[float] = ()


def encode_events(of: Identity, answers: Answers) -> list[Record]:
    """The prediction records, keyed by the canonical text of the contract's key field."""
    head = HEADER.pack(MAGIC, of.schema_id) + long(_ID_DIGITS)
    middle = (
        text(of.model)
        + long(of.version)
        + text(of.artifact_digest)
        + text(of.contract_digest)
        + long(of.rollout_revision)
        + _map((name, text(value)) for name, value in of.runtime.items())
        + text(of.role)
        + (_NULL if of.arm is None else _SOME + text(of.arm))
        + text(of.served_by)
        + (_NULL if of.served_cause is None else _SOME + text(of.served_cause))
    )
    rows = len(answers.bodies)
    lead = {p: f"{of.id_role}|{answers.topic}/{p}/".encode() for p in set(answers.partitions)}
    place = {p: text(answers.topic) + long(p) for p in lead}
    ids = [
        hashlib.sha256(lead[partition] + b"%d" % offset).hexdigest()[:_ID_DIGITS].encode()
        for partition, offset in zip(answers.partitions, answers.offsets, strict=True)
    ]
    request_ids = [_sized(data) for data in answers.request_ids]
    keys = request_ids if answers.keys is answers.request_ids else [_sized(data) for data in answers.keys]
    replaced = [_NONE] * rows
    for row, some in answers.replaced.items():
        replaced[row] = _replacements(some)
    values = map(
        b"".join,
        zip(
            [head] * rows,
            ids,
            request_ids,
            keys,
            longs(answers.event_times),
            [place[partition] for partition in answers.partitions],
            longs(np.array(answers.offsets, dtype=np.int64)),
            [middle] * rows,
            [body[HEADER.size :] for body in answers.bodies],
            replaced,
            _numbers(answers.outputs, rows),
            _ended(answers, struct.pack("<d", of.arm_propensity)),
            strict=True,
        ),
    )
    return [Record(of.topic, value, key) for value, key in zip(values, answers.keys, strict=True)]


def long(number: int) -> bytes:
    """A zig-zag number of variable length (Avro 1.11, "Binary Encoding")."""
    number = (number << 1) ^ (number >> 63)
    if number < 0x80:
        return _ONE_BYTE[number]
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


_ONE_BYTE = [bytes([n]) for n in range(0x80)]
_MOST_BYTES = 10


def longs(numbers: Ints) -> list[bytes]:
    """Many numbers at once."""
    left = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    digits = np.zeros((len(numbers), _MOST_BYTES), dtype=np.uint8)
    sizes = np.ones(len(numbers), dtype=np.int64)
    for place in range(_MOST_BYTES):
        digits[:, place] = left & np.uint64(0x7F)
        left = left >> np.uint64(7)
        more = left != 0
        if not more.any():
            break
        digits[more, place] |= 0x80
        sizes += more
    data = digits.tobytes()
    return [
        data[at : at + size]
        for at, size in zip(range(0, len(data), _MOST_BYTES), sizes.tolist(), strict=True)
    ]


def text(value: str) -> bytes:
    return _sized(value.encode())


def _sized(data: bytes) -> bytes:
    size = len(data)
    return (_ONE_BYTE[2 * size] if size < 0x40 else long(size)) + data


def _map(items: Iterable[tuple[str, bytes]]) -> bytes:
    pairs = [text(name) + value for name, value in items]
    return (long(len(pairs)) + b"".join(pairs) if pairs else b"") + _NONE


def _replacements(some: Sequence[Replaced]) -> bytes:
    written = [
        text(r.field) + (_NULL if r.value is None else _SOME + text(r.value)) + text(r.reason) for r in some
    ]
    return long(len(written)) + b"".join(written) + _NONE


def _numbers(outputs: Predictions, rows: int) -> list[bytes]:
    """score and probabilities, by row; for a regression both are empty."""
    if outputs.probabilities is None:
        return [_NULL + _NONE] * rows
    if outputs.score is not None:
        data = outputs.score.astype("<f8").tobytes()
        return [_SOME + data[at : at + 8] + _NONE for at in range(0, len(data), 8)]
    names = [text(name) for name in outputs.classes]
    count, width = long(len(names)), 8 * len(names)
    data = outputs.probabilities.astype("<f8").tobytes()
    return [
        _NULL
        + count
        + b"".join([name + data[at + 8 * i : at + 8 * i + 8] for i, name in enumerate(names)])
        + _NONE
        for at in range(0, len(data), width)
    ]


def _ended(answers: Answers, arm_propensity: bytes) -> list[bytes]:
    """Everything behind the numbers, by row: decisions, propensities, findings, explanation, latency."""
    findings, explanations = answers.findings, answers.explanations
    latency = struct.pack("<d", answers.latency_ms)
    plain = _NONE + _NULL + latency
    if not findings and not explanations:
        return _decisions(answers, arm_propensity + plain)
    ends = [plain] * len(answers.bodies)
    for row in {*findings, *explanations}:
        ends[row] = _findings(findings.get(row, ())) + _explanation(explanations.get(row)) + latency
    return [one + end for one, end in zip(_decisions(answers, arm_propensity), ends, strict=True)]


def _findings(some: Sequence[Finding]) -> bytes:
    written = [
        text(f.guard) + (_NULL if f.field is None else _SOME + text(f.field)) + text(f.detail) for f in some
    ]
    return (long(len(written)) + b"".join(written) if written else b"") + _NONE


def _explanation(some: Sequence[Contribution] | None) -> bytes:
    if some is None:
        return _NULL
    written = [text(feature) + struct.pack("<d", contribution) for feature, contribution in some]
    return _SOME + (long(len(written)) + b"".join(written) if written else b"") + _NONE


def _decisions(answers: Answers, end: bytes) -> list[bytes]:
    """predicted class, value, action, rule, the action's propensity and all behind them, by row."""
    choices, options, outputs = answers.choices, answers.options, answers.outputs
    propensities = answers.propensities or [1.0] * len(options)
    ends = [struct.pack("<d", propensity) + end for propensity in propensities]
    if outputs.value is not None:
        said = [_action("", option) + end for option, end in zip(options, ends, strict=True)]
        data = outputs.value.astype("<f8").tobytes()
        return [
            _NULL + _SOME + data[at : at + 8] + said[choice]
            for at, choice in zip(range(0, len(data), 8), choices.tolist(), strict=True)
        ]
    if outputs.probabilities is None:
        said = [_named(outputs, option) + end for option, end in zip(options, ends, strict=True)]
        return [said[choice] for choice in choices.tolist()]
    # There are few pairs of class and choice.
    pairs = [
        _SOME + text(name) + _NULL + _action(name, option) + end
        for name in outputs.classes
        for option, end in zip(options, ends, strict=True)
    ]
    found = outputs.probabilities.argmax(axis=1) * len(options) + choices
    return [pairs[pair] for pair in found.tolist()]


def _named(outputs: Predictions, option: Choice) -> bytes:
    """predicted class, value and action where no number was said."""
    name = outputs.named if isinstance(outputs, Unscored) else None
    return (_NULL if name is None else _SOME + text(name)) + _NULL + _action(name or "", option)


def _action(predicted_class: str, option: Choice) -> bytes:
    rule = _NULL if option.rule is None else _SOME + text(option.rule)
    return text(predicted_class if option.action is None else option.action) + rule
