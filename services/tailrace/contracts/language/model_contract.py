"""The model contract: what a user says about one logical model, parsed and with all defaults resolved."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from tailrace.contracts.language import sections
from tailrace.contracts.language.fields import (
    ContextField,
    EventTime,
    Feature,
    FieldName,
    Key,
    Section,
    Target,
)
from tailrace.contracts.language.names import MODEL_LENGTH, MODEL_PATTERN
from tailrace.contracts.language.training import Training
from tailrace.errors import TailraceError

ModelName = Annotated[str, StringConstraints(pattern=MODEL_PATTERN, max_length=MODEL_LENGTH)]
Task = Literal["binary", "multiclass", "regression"]


class ModelContract(Section):
    """A model contract with every default filled in.

    Durations are integer milliseconds (attributes ending in ``_ms``), shares are floats between 0 and 1.
    Read one with :func:`load_contract`, which also checks what concerns several fields at once, or
    with :meth:`from_resolved` from what ``tailrace apply`` published.
    """

    model: ModelName
    """Name of the logical model; also names tables and topics."""
    lane: ModelName = ""
    """Prefix of the topics; by default the model's name."""
    owner: sections.Owner
    key: Key = Key()
    event_time: EventTime = EventTime()
    features: Annotated[dict[FieldName, Feature], Field(min_length=1, max_length=2000)]
    """All that any version of the model may use, by name."""
    context: dict[FieldName, ContextField] = Field({})
    """Logged with each prediction; never given to a model."""
    rules: list[sections.Rule] = Field([])
    """Conditions across fields that every row keeps."""
    target: Target
    labels: sections.Labels = sections.Labels()
    policy: list[sections.PolicyRule] = Field([])
    """The first rule that matches decides; by default the action is the predicted class."""
    explore: sections.Explore | None = None
    guardrails: sections.Guardrails = sections.Guardrails()
    explain: sections.Explain = sections.Explain()
    drift: sections.Drift = sections.Drift()
    quality: sections.Quality = sections.Quality()
    value: sections.Expression | None = None
    """SQL: what one prediction was worth, given action and target."""
    alerts: sections.Alerts = sections.Alerts()
    training: Training = Training()
    gates: sections.Gates = sections.Gates()
    rollout: sections.Rollout = sections.Rollout()
    experiment: sections.Experiment | None = None
    approvals: sections.Approvals = sections.Approvals()
    service_levels: sections.ServiceLevels = sections.ServiceLevels()
    keep: sections.Keep = sections.Keep()

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        """Fills the defaults that depend on other fields."""
        metric = sections.GATE_METRIC[self.task]
        champion, baseline = self.gates.beat_champion, self.gates.beat_baseline
        filled: dict[str, Any] = {
            "lane": self.lane or self.model,
            "policy": [
                _with(rule, name=rule.name or f"{rule.do}-{position}")
                for position, rule in enumerate(self.policy, 1)
            ],
            "quality": _with(
                self.quality,
                judge_at_ms=self.quality.judge_at_ms or [0, self.labels.horizon_ms],
                metrics=self.quality.metrics or sections.DEFAULT_METRICS[self.task],
            ),
            "gates": _with(
                self.gates,
                beat_champion=_with(champion, metric=champion.metric or metric),
                beat_baseline=_with(baseline, metric=baseline.metric or metric),
            ),
        }
        # Two horizons, so that a joiner whose disk is lost finds all that it needs in the log (docs/adr/0084).
        joined = {"predictions_ms", "labels_ms"}
        twice = 2 * self.labels.horizon_ms + self.event_time.lateness_ms
        kept = {
            name: getattr(self.keep, name) or _whole_days(max(least, twice if name in joined else 0))
            for name, least in self.least_keep_ms().items()
        }
        filled["keep"] = _with(self.keep, **kept)
        self.__dict__.update(filled)
        return self

    def least_keep_ms(self) -> dict[str, int]:
        """The shortest retention, in ms, at which horizon, windows and training still find their records."""
        horizon, lateness = self.labels.horizon_ms, self.event_time.lateness_ms
        return {
            "predictions_ms": horizon + max(self.drift.window_ms, self.quality.window_ms),
            "labels_ms": horizon + lateness,
            "outcomes_ms": horizon + self.training.window_ms,
        }

    @property
    def task(self) -> Task:
        if self.target.type == "number":
            return "regression"
        return "binary" if self.target.type == "boolean" or self.target.positive else "multiclass"

    @property
    def classes(self) -> list[str]:
        """The classes by name, in order; empty for a regression."""
        if self.target.type == "boolean":
            return ["false", "true"]
        return list(self.target.categories or [])

    @property
    def positive_class(self) -> str | None:
        """The class whose probability is the score of a binary model."""
        if self.task != "binary":
            return None
        return self.target.positive or "true"

    @property
    def actions(self) -> list[str]:
        """Every action that can come of a request, in order of mention.

        Where no policy rule always matches, the predicted class is an action too (``none`` for a regression).
        """
        named = [rule.do for rule in self.policy]
        if all(rule.when is not None for rule in self.policy):
            named += self.classes or ["none"]
        if self.explore:
            named.append(self.explore.do)
        named += [step.do for step in self.guardrails.fallback if step.do]
        return list(dict.fromkeys(named))

    def to_dict(self) -> dict[str, Any]:
        """The resolved contract as plain data in its canonical spelling; itself a valid contract."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @cached_property
    def resolved_json(self) -> str:
        """The resolved contract as JSON, fields in the order in which their author wrote them."""
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the resolved contract with sorted keys: one for every spelling."""
        canonical = json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def from_resolved(cls, text: str | bytes) -> ModelContract:
        """Reads what ``resolved_json`` wrote, as it stands on ``tailrace.contracts``.

        Raises:
            TailraceError: it says something that this version of Tailrace does not know.
        """
        data = json.loads(text)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise TailraceError(
                f"this version of Tailrace cannot read the contract of {data.get('model')!r} that is in force; "
                f"use the version that applied it, or a later one: {error.errors(include_url=False)[:3]}"
            ) from error


def _with(section: Section, **fields: Any) -> Section:
    return section.model_copy(update=fields)


def _whole_days(milliseconds: int) -> int:
    return -(-milliseconds // sections.DAY) * sections.DAY
