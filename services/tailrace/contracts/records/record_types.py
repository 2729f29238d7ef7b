"""The records of schemas/avro as Python reads and writes them. `make pages` makes this file of the schemas.

A time is an int, in ms since 1970. Who writes a record may leave out a field that has a default; who reads it, has all.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class SourceRecord(TypedDict):
    """Coordinates of the record that this one comes from."""

    topic: str
    partition: int
    offset: int


class AlertRecord(TypedDict):
    """Something that a person should know. An alert is raised, lasts, and is resolved under one id."""

    alert_id: str
    state: str
    kind: str
    severity: str
    model: NotRequired[str | None]
    version: NotRequired[int | None]
    service: str
    summary: str
    detail: NotRequired[dict[str, str]]
    source: NotRequired[SourceRecord | None]
    at: int


class ClockRecord(TypedDict):
    """Who tells a lane the time, by writing marks into input partitions that are silent."""

    lane: str
    revision: int
    follows: int
    owner: str
    by: str
    at: int


class CommandRecord(TypedDict):
    """What a person asks of the loop. Answered by a rollout step or an alert that names the command."""

    command_id: str
    model: str
    command: str
    version: NotRequired[int | None]
    follows: NotRequired[int | None]
    by: str
    reason: NotRequired[str]
    issued_at: int
    key_id: NotRequired[str | None]
    signature: NotRequired[bytes | None]
    arms: NotRequired[list[int]]


class ContractRecord(TypedDict):
    model: str
    revision: int
    follows: int
    digest: str
    source_text: str
    resolved: str
    applied_by: str
    applied_at: int
    step: NotRequired[str | None]


class BinRecord(TypedDict):
    label: str
    count: int
    reference: float


class DriftTestRecord(TypedDict):
    feature: str
    test: str
    statistic: NotRequired[float | None]
    p_value: NotRequired[float | None]
    q_value: NotRequired[float | None]
    effect: NotRequired[float | None]
    n: int
    reference_n: int
    drifted: bool
    histogram: NotRequired[list[BinRecord]]


class DriftReportRecord(TypedDict):
    report_id: str
    model: str
    version: int
    role: str
    segment: str
    window_start: int
    window_end: int
    contract_digest: str
    artifact_digest: str
    rows: int
    late: int
    alpha: float
    verdict: str
    tests: list[DriftTestRecord]


class ChunkRecord(TypedDict):
    part: str
    index: int
    partition: int
    offset: int
    size: int
    sha256: str


class ModelManifestRecord(TypedDict):
    model: str
    version: int
    manifest: bytes
    digest: str
    signature: bytes
    key_id: str
    chunks: list[ChunkRecord]
    published_at: int
    published_by: str


class MetricValueRecord(TypedDict):
    metric: str
    value: NotRequired[float | None]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    n: int
    interval: str
    error: NotRequired[float | None]
    holdout: NotRequired[float | None]
    drop: NotRequired[float | None]
    p_value: NotRequired[float | None]


class PairedMetricRecord(TypedDict):
    metric: str
    version_value: NotRequired[float | None]
    against_value: NotRequired[float | None]
    gain: NotRequired[float | None]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    p_value: NotRequired[float | None]
    n: int
    sum: NotRequired[float | None]
    sum_squares: NotRequired[float | None]


class PerformanceReportRecord(TypedDict):
    report_id: str
    model: str
    version: int
    role: str
    segment: str
    against: NotRequired[int | None]
    window_start: int
    window_end: int
    age: int
    judged_at: int
    contract_digest: str
    artifact_digest: str
    predictions: int
    fallbacks: NotRequired[int]
    labelled: int
    assumed: NotRequired[int]
    unlabelled: int
    late_labels: int
    label_share: NotRequired[float | None]
    mature: bool
    metrics: list[MetricValueRecord]
    paired: NotRequired[list[PairedMetricRecord]]
    value_total: NotRequired[float | None]
    value_squares: NotRequired[float | None]
    value_mean: NotRequired[float | None]
    verdict: str
    reasons: NotRequired[list[str]]


class CanaryRecord(TypedDict):
    version: int
    share: float
    salt: str
    step: int


class ArmRecord(TypedDict):
    arm: str
    version: int
    probability: float
    requests: NotRequired[int]
    mean: NotRequired[float | None]
    deviation: NotRequired[float | None]
    best: NotRequired[float | None]


class ExperimentRecord(TypedDict):
    assign: str
    share: float
    salt: str
    arms: list[ArmRecord]


class RolloutRecord(TypedDict):
    model: str
    revision: int
    follows: int
    step: str
    version: NotRequired[int | None]
    champion: NotRequired[int | None]
    previous: NotRequired[int | None]
    shadow: NotRequired[list[int]]
    candidates: NotRequired[list[int]]
    rejected: NotRequired[list[int]]
    retired: NotRequired[list[int]]
    rolled_back: NotRequired[list[int]]
    frozen: NotRequired[bool]
    off: NotRequired[bool]
    canary: NotRequired[CanaryRecord | None]
    experiment: NotRequired[ExperimentRecord | None]
    reason: str
    by: str
    command_id: NotRequired[str | None]
    source: SourceRecord
    contract_digest: NotRequired[str | None]
    evidence: NotRequired[dict[str, str]]


class TriggeredByRecord(TypedDict):
    kind: str
    id: str
    at: int
    reason: str


class UntilRecord(TypedDict):
    partition: int
    offset: int


class EvaluationRecord(TypedDict):
    who: str
    template: NotRequired[str | None]
    version: NotRequired[int | None]
    metric: str
    value: NotRequired[float | None]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    n: int


class TrainingRunRecord(TypedDict):
    run_id: str
    model: str
    state: str
    at: int
    trigger: str
    triggers: list[TriggeredByRecord]
    changed_at: int
    window_start: int
    window_end: int
    known_before: int
    offsets: list[UntilRecord]
    labels: int
    seed: int
    contract_digest: str
    champion: NotRequired[int | None]
    templates: list[str]
    dataset_digest: NotRequired[str | None]
    rows: NotRequired[int | None]
    held_back: NotRequired[int | None]
    evaluations: NotRequired[list[EvaluationRecord]]
    content_digest: NotRequired[str | None]
    version: NotRequired[int | None]
    template: NotRequired[str | None]
    progress: NotRequired[float | None]
    reason: NotRequired[str]
    template_distribution: NotRequired[str | None]
    template_version: NotRequired[str | None]
    template_digest: NotRequired[str | None]


class ClaimRecord(TypedDict):
    topic: str
    partition: int
    stream: str
    time: int


class CellRecord(TypedDict):
    stream: str
    contract_digest: str
    window_start: int
    age: int
    subject: str
    counts: bytes


class WindowPartRecord(TypedDict):
    kind: str
    model: str
    lane: str
    partitions: int
    claims: list[ClaimRecord]
    cells: list[CellRecord]
