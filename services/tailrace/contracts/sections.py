"""The sections of a contract that say what happens around the model, from labels to approvals."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from tailrace.contracts.durations import Duration, DurationOrZero, Share
from tailrace.contracts.fields import FieldName, Finite, Section
from tailrace.contracts.names import ACTION_PATTERN

DAY = 86_400_000

Expression = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Action = Annotated[str, StringConstraints(pattern=ACTION_PATTERN, max_length=80)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=80)]
Count = Annotated[int, Field(ge=1)]

Metric = Literal["auc", "log_loss", "brier", "accuracy", "balanced_accuracy", "f1", "rmse", "mae", "bias"]
METRICS_OF = {
    "binary": ("auc", "log_loss", "brier", "accuracy", "balanced_accuracy", "f1"),
    "multiclass": ("log_loss", "brier", "accuracy", "balanced_accuracy", "f1"),
    "regression": ("rmse", "mae", "bias"),
}
DEFAULT_METRICS: dict[str, list[Metric]] = {
    "binary": ["auc", "log_loss", "brier"],
    "multiclass": ["accuracy", "log_loss"],
    "regression": ["rmse", "mae"],
}
GATE_METRIC: dict[str, Metric] = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}


class Owner(Section):
    """Whom to ask, and where alerts go."""

    team: Label
    alerts: Label | None = None
    runbook: Label | None = None


class Rule(Section):
    """A condition across fields; a row that breaks it becomes a dead letter with the rule's name."""

    name: Label
    require: Expression


class Join(Section):
    """How a label finds its prediction: by request id, or by the key within a time."""

    by: Literal["request_id", "key"] = "request_id"
    within_ms: Duration | None = Field(None, alias="within")
    take: Literal["first", "last"] | None = None


class Never(Section):
    """What a label that never came by the horizon means."""

    assume: bool | Finite | str


def _join(value: Any) -> Any:
    return {"by": value} if isinstance(value, str) else value


class Labels(Section):
    """When the truth is known, and of what."""

    horizon_ms: Duration = Field(30 * DAY, alias="horizon")
    join: Annotated[Join, BeforeValidator(_join)] = Join()
    known_only_for: list[Action] = Field([])
    """Actions after which the truth is ever known; empty: after every action."""
    never: Never | None = None
    """None: what has no label at the horizon stays unlabelled."""


class PolicyRule(Section):
    """``when`` over score, guards, features and context, and what is done then; without ``when`` always."""

    when: Expression | None = None
    do: Action
    name: Label = ""


class Explore(Section):
    """A share of one action that is turned into another, so that its outcome becomes known."""

    share: Share
    from_action: Action = Field(alias="from")
    do: Action


class Domain(Section):
    false_alarms: Share


class Range(Section):
    min: Finite | None = None
    max: Finite | None = None


class _OneOf(Section):
    """A mapping that says exactly one thing."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        said = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(said) != 1:
            choices = ", ".join(field.alias or name for name, field in type(self).model_fields.items())
            raise ValueError(f"says {len(said)} things; write exactly one of {choices}")
        return self


class Fallback(_OneOf):
    """One step of the fallback chain."""

    previous: Literal[True] | None = None
    rule: Expression | None = None
    constant: Finite | str | None = None
    do: Action | None = None


class Guardrails(Section):
    domain: Domain | None = None
    score: Range | None = None
    coverage: Share | None = None
    fallback: list[Fallback] = Field([])


class Explain(Section):
    sample: Share = 0.0
    always: list[Action] = Field([])
    top: Count = 5


class FalseAlerts(Section):
    at_most: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    per_ms: Duration = Field(30 * DAY, alias="per")


class MinEffect(Section):
    ks: Annotated[float, Field(ge=0, le=1)] = 0.1
    cramers_v: Annotated[float, Field(ge=0, le=1)] = 0.1


class Drift(Section):
    window_ms: Duration = Field(DAY, alias="window")
    min_rows: Count = 500
    false_alerts: FalseAlerts = FalseAlerts()
    min_effect: MinEffect = MinEffect()
    by: list[FieldName] = Field([])


class SelectionRatio(Section):
    of: FieldName
    favourable: Action
    at_least: Annotated[float, Field(gt=0, le=1)]


class Quality(Section):
    window_ms: Duration = Field(7 * DAY, alias="window")
    judge_at_ms: list[DurationOrZero] = Field([], alias="judge_at")
    """Ages at which a window is judged; by default when it closes and at the label horizon."""
    metrics: list[Metric] = Field([])
    slices: list[Expression] = Field([])
    """Fields, or expressions that are true or false."""
    mature: Share = 0.8
    drop: dict[Metric, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field({})
    selection_ratio: SelectionRatio | None = None


# The phrases that name what is severe, each with what its places stand for.
ALERT_PHRASES = {
    r"drift": "drift",
    r"drift on a feature of importance over (?P<share>\S+%)": "drift on a feature of importance over 20%",
    r"drift on (?P<field>\w+)": "drift on FIELD",
    r"quality drop": "quality drop",
    r"quality drop of (?P<metric>\w+)": "quality drop of METRIC",
    r"fallback share over (?P<share>\S+%)": "fallback share over 1%",
    r"dead-letter share over (?P<share>\S+%)": "dead-letter share over 1%",
    r"package refused": "package refused",
    r"no label for (?P<duration>\S+)": "no label for 30d",
}


def match_alert(phrase: str) -> tuple[str, dict[str, str]] | None:
    """The pattern that an alert phrase follows and the places it fills; None where it follows none."""
    for pattern in ALERT_PHRASES:
        found = re.fullmatch(pattern, phrase)
        if found:
            return pattern, {k: v for k, v in found.groupdict().items() if v}
    return None


def _phrase(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


class Alerts(Section):
    severe: list[Annotated[str, BeforeValidator(_phrase)]] = Field(["quality drop"])
    silence_ms: Duration = Field(DAY, alias="silence")


class Trigger(_OneOf):
    """What starts a retraining."""

    drift: Literal["alert"] | None = None
    quality: Literal["alert"] | None = None
    every_ms: Duration | None = Field(None, alias="every")
    labels: Count | None = None


Template = Literal["logistic-regression", "random-forest", "hist-gradient-boosting"]


class Training(Section):
    template: Template = "logistic-regression"
    window_ms: Duration = Field(180 * DAY, alias="window")
    triggers: list[Trigger] = Field([Trigger(drift="alert"), Trigger(quality="alert")])
    min_labels: Count = 1000
    cooldown_ms: Duration = Field(7 * DAY, alias="cooldown")


class BeatChampion(Section):
    metric: Metric | None = None
    by: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class BeatBaseline(Section):
    metric: Metric | None = None


class Ratchet(Section):
    metric: Metric
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class NotWorseOn(Section):
    slices: Annotated[list[Expression], Field(min_length=1)]
    metric: Metric
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Direction(Section):
    """Where this feature rises, all else equal, the score must not go up (or down)."""

    raise_field: FieldName = Field(alias="raise")
    score: Literal["not_up", "not_down"]


class Gates(Section):
    beat_champion: BeatChampion = BeatChampion()
    beat_baseline: BeatBaseline = BeatBaseline()
    ratchet: Ratchet | None = None
    not_worse_on: NotWorseOn | None = None
    directions: list[Direction] = Field([])


class Shadow(Section):
    outcomes: Count = 500


class Canary(Section):
    steps: Annotated[list[Share], Field(min_length=1)]
    outcomes: Count = 500


class BackIf(Section):
    fallback_share: Share | None = None
    alert: Literal["severe", "none"] = "severe"


class Rollout(Section):
    shadow: Shadow = Shadow()
    canary: Canary | None = None
    back_if: BackIf = BackIf()


class Approval(Section):
    role: Label
    not_author: bool = True
    within_ms: Duration = Field(3 * DAY, alias="within")


class Approvals(Section):
    promote: Approval | None = None


class ServiceLevels(Section):
    latency_p99_ms: Duration | None = Field(None, alias="latency_p99")
    answered: Share | None = None
    staleness_ms: Duration | None = Field(None, alias="staleness")


class Keep(Section):
    """How long the lane's topics are kept. What is not said follows from horizon, windows and training.

    Milliseconds; zero only while a contract is still being read.
    """

    requests_ms: Duration = Field(30 * DAY, alias="requests")
    predictions_ms: Duration = Field(0, alias="predictions")
    labels_ms: Duration = Field(0, alias="labels")
    """Labels and actions."""
    outcomes_ms: Duration = Field(0, alias="outcomes")
    dead_letters_ms: Duration = Field(30 * DAY, alias="dead_letters")
