"""The sections of a contract that say what happens around the model, from labels to approvals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, create_model, model_validator

from tailrace.contracts.language.durations import Duration, DurationOrZero, Share
from tailrace.contracts.language.fields import MINUTE, FieldName, Finite, Section
from tailrace.contracts.language.guards.domain import Domain
from tailrace.contracts.language.guards.guard import ModelGuard
from tailrace.contracts.language.guards.guards import GUARDS
from tailrace.contracts.language.guards.outputs import Range
from tailrace.contracts.language.names import ACTION_PATTERN
from tailrace.statistics.drift_tests import DRIFT_TESTS, EFFECT_SIZES
from tailrace.statistics.metrics import METRICS

DAY = 86_400_000

Expression = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Action = Annotated[str, StringConstraints(pattern=ACTION_PATTERN, max_length=80)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=80)]
Count = Annotated[int, Field(ge=1)]

if TYPE_CHECKING:
    MetricName = str
    DriftTestName = str
else:
    MetricName = Literal[tuple(metric.name for metric in METRICS if metric.tasks)]
    DriftTestName = Literal[tuple(test.name for test in DRIFT_TESTS)]
DEFAULT_METRICS: dict[str, list[MetricName]] = {
    "binary": ["auc", "log_loss", "brier"],
    "multiclass": ["accuracy", "log_loss"],
    "regression": ["rmse", "mae"],
}
GATE_METRIC: dict[str, MetricName] = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}
DEFAULT_DRIFT_TESTS: list[DriftTestName] = ["ks", "chi2", "missing", "unseen"]


class Owner(Section):
    """Whom to ask, and where alerts go."""

    team: Label
    """Who answers for the model."""
    alerts: Label | None = None
    """Where alerts go."""
    runbook: Label | None = None
    """Where help is."""


class Rule(Section):
    """A condition across fields; a row that breaks it becomes a dead letter with the rule's name."""

    name: Label
    require: Expression
    """SQL over features and context."""


class Join(Section):
    """How a label finds its prediction: by request id, or by the key within a time."""

    by: Literal["request_id", "key"] = "request_id"
    within_ms: Duration | None = Field(None, alias="within")
    """By key: how long before the label the prediction may be."""
    take: Literal["first", "last"] | None = None
    """By key: which of several predictions."""


class Never(Section):
    """What a label that never came by the horizon means."""

    assume: bool | Finite | str


def _join(value: Any) -> Any:
    return {"by": value} if isinstance(value, str) else value


class Labels(Section):
    """When the truth is known, and of what."""

    horizon_ms: Duration = Field(30 * DAY, alias="horizon")
    """After this a label is no longer waited for."""
    tolerance_ms: DurationOrZero = Field(MINUTE, alias="tolerance")
    """How far before its request's event time a label's or an action's may be: clocks differ."""
    join: Annotated[Join, BeforeValidator(_join)] = Join()
    """``request_id``; by key is refused, since nothing joins so yet."""
    known_only_for: list[Action] = Field([])
    """Actions after which the truth is ever known; empty: after every action."""
    never: Never | None = None
    """None: what has no label at the horizon stays unlabelled."""


class PolicyRule(Section):
    """``when`` over score, guards, features and context, and what is done then; without ``when`` always."""

    when: Expression | None = None
    """SQL over features, context, score, predicted_class, value, uncertain and guarded."""
    do: Action
    """The action."""
    name: Label = ""
    """Logged with the prediction."""


class Explore(Section):
    """A share of one action that is turned into another, so that its outcome becomes known."""

    share: Share
    """How many of them."""
    from_action: Action = Field(alias="from")
    """The action that is turned."""
    do: Action
    """The action that it becomes."""


class OneOf(Section):
    """A mapping that says exactly one thing."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        fields = type(self).model_fields
        given = sum(getattr(self, name) is not None for name in fields)
        if given != 1:
            choices = ", ".join(field.alias or name for name, field in fields.items())
            raise ValueError(f"says {given} things; write exactly one of {choices}")
        return self


class Fallback(OneOf):
    """One step of the fallback chain."""

    previous: Literal[True] | None = None
    """The previous version answers."""
    rule: Expression | None = None
    """SQL over features and context answers."""
    constant: Finite | str | None = None
    """This value, or class, is the answer."""
    do: Action | None = None
    """No answer; a person sees to it under this action."""


class GuardSettings(Section):
    """Its fields are those of GUARDS that have a setting, and the fallback chain."""

    def of(self, guard: ModelGuard) -> Any:
        """What the contract asks of a guard; None where it asks for nothing."""
        return getattr(self, guard.name, None)


if TYPE_CHECKING:

    class Guardrails(GuardSettings):
        domain: Domain | None = None
        score: Range | None = None
        coverage: Share | None = None
        fallback: list[Fallback] = Field([])
else:
    Guardrails = create_model(
        "Guardrails",
        __base__=GuardSettings,
        __doc__=None,
        **{
            guard.name: (guard.section | None, Field(None, description=guard.doc))
            for guard in GUARDS
            if guard.section is not None
        },
        fallback=(
            list[Fallback],
            Field([], description="Who answers, in this order, where a guard or the model fails."),
        ),
    )


class Explain(Section):
    sample: Share = 0.0
    """Share of answers that are explained."""
    always: list[Action] = Field([])
    """Actions that are always explained."""
    top: Count = 5
    """Contributions per explanation."""


class FalseAlerts(Section):
    at_most: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Alerts in a quiet stream."""
    per_ms: Duration = Field(30 * DAY, alias="per")
    """Per this time."""


class EffectFloors(Section):
    """Its fields are the effect sizes of DRIFT_TESTS."""

    def of(self, effect: str) -> float:
        """The floor of an effect size."""
        return float(getattr(self, effect))


if TYPE_CHECKING:
    MinEffect = EffectFloors
else:
    MinEffect = create_model(
        "MinEffect",
        __base__=EffectFloors,
        __doc__=None,
        **{
            name: (Annotated[float, Field(ge=0, le=1)], Field(effect.floor, description=effect.doc))
            for name, effect in EFFECT_SIZES.items()
        },
    )


class Drift(Section):
    window_ms: Duration = Field(DAY, alias="window")
    """Event time per verdict."""
    min_rows: Count = 500
    """No verdict on fewer."""
    false_alerts: FalseAlerts = FalseAlerts()
    """The budget of false alerts."""
    min_effect: MinEffect = MinEffect()
    """Smaller changes raise nothing."""
    tests: Annotated[list[DriftTestName], Field(min_length=1)] = Field(DEFAULT_DRIFT_TESTS)
    """What windows are compared by, each where it fits a field."""
    by: list[FieldName] = Field([])
    """Fields by whose groups drift is judged too."""


class SelectionRatio(Section):
    of: FieldName
    """The field that makes the groups."""
    favourable: Action
    """The action that people want."""
    at_least: Annotated[float, Field(gt=0, le=1)]
    """Least ratio of its shares between any two groups."""


class Quality(Section):
    window_ms: Duration = Field(7 * DAY, alias="window")
    """By the prediction's event time."""
    judge_at_ms: list[DurationOrZero] = Field([], alias="judge_at")
    """Ages at which a window is judged; by default when it closes and at the label horizon."""
    metrics: list[MetricName] = Field([])
    """By default those usual for the task."""
    slices: list[Expression] = Field([])
    """Fields, or expressions that are true or false."""
    mature: Share = 0.8
    """No verdict below this share of labels."""
    drop: dict[MetricName, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field({})
    """By metric: more than this below the holdout, and significantly, is an alert."""
    selection_ratio: SelectionRatio | None = None
    """Least ratio of favourable actions between groups."""


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
        if match := re.fullmatch(pattern, phrase):
            return pattern, {place: text for place, text in match.groupdict().items() if text}
    return None


def _phrase(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


class Alerts(Section):
    severe: list[Annotated[str, BeforeValidator(_phrase)]] = Field(["quality drop"])
    """Phrases such as ``drift on FIELD``, ``quality drop``, ``fallback share over 1%``."""
    silence_ms: Duration = Field(DAY, alias="silence")
    """An open alert is not sent again before."""


class BeatChampion(Section):
    metric: MetricName | None = None
    """By default log_loss, for a regression rmse."""
    by: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """By at least this."""


class BeatBaseline(Section):
    metric: MetricName | None = None
    """By default log_loss, for a regression rmse."""


class Ratchet(Section):
    metric: MetricName
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How much worse than the best ever it may be."""


class NotWorseOn(Section):
    slices: Annotated[list[Expression], Field(min_length=1)]
    """Fields, or conditions."""
    metric: MetricName
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How much worse it may be on each."""


class Direction(Section):
    """Where this feature rises, all else equal, the score must not go up (or down)."""

    raise_field: FieldName = Field(alias="raise")
    score: Literal["not_up", "not_down"]


class Gates(Section):
    beat_champion: BeatChampion = BeatChampion()
    """Better than the champion on the same outcomes."""
    beat_baseline: BeatBaseline = BeatBaseline()
    """Better than knowing only the target's distribution."""
    ratchet: Ratchet | None = None
    """Not worse than the best ever."""
    not_worse_on: NotWorseOn | None = None
    """Not worse on any of these slices."""
    directions: list[Direction] = Field([])
    """Where a feature rises, the score must not."""


class Shadow(Section):
    outcomes: Count = 500
    """Labelled outcomes before a verdict."""


class Canary(Section):
    steps: Annotated[list[Share], Field(min_length=1)]
    """Rising shares of the traffic."""
    outcomes: Count = 500
    """Labelled outcomes per step."""


class BackIf(Section):
    fallback_share: Share | None = None
    """More answers than this from the fallback."""
    alert: Literal["severe", "none"] = "severe"
    """Any severe alert."""


class Rollout(Section):
    shadow: Shadow = Shadow()
    """How long a candidate scores without answering."""
    canary: Canary | None = None
    """Then it answers a share of requests."""
    back_if: BackIf = BackIf()
    """What takes it back at once."""


class Experiment(Section):
    """How versions are compared that a person lets answer side by side; by what the contract's ``value`` says."""

    assign: Literal["fixed", "epsilon-greedy", "thompson"] = "fixed"
    """Equal shares to the end, or more for what earns more."""
    share: Share = 1.0
    """How many of the keys take part."""
    epsilon: Share = 0.1
    """How many of them all arms share equally, whatever they earn."""
    outcomes: Count = 500
    """Labelled outcomes of each arm before shares change."""


class Approval(Section):
    role: Label | None = None
    """Of the person who agrees."""
    not_author: bool | None = None
    """Not the one who trained it."""
    within_ms: Duration | None = Field(None, alias="within")
    """Else the request lapses."""


class Approvals(Section):
    promote: Approval | None = None
    """Before a candidate becomes champion."""


class ServiceLevels(Section):
    latency_p99_ms: Duration | None = Field(None, alias="latency_p99")
    """From a request's append to its answer."""
    answered: Share | None = None
    """Share of requests that the model answers."""
    staleness_ms: Duration | None = Field(None, alias="staleness")
    """Age at which a champion is too old."""


class Keep(Section):
    """How long the lane's topics are kept. What is not said follows from horizon, windows and training.

    Milliseconds; zero only while a contract is still being read.
    """

    requests_ms: Duration = Field(30 * DAY, alias="requests")
    predictions_ms: Duration = Field(0, alias="predictions")
    """At least the label horizon and the longest window."""
    labels_ms: Duration = Field(0, alias="labels")
    """Labels and actions."""
    outcomes_ms: Duration = Field(0, alias="outcomes")
    """At least the label horizon and the training window."""
    dead_letters_ms: Duration = Field(30 * DAY, alias="dead_letters")
