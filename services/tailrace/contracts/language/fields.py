"""The fields that a contract declares: key, event time, features, context, target."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tailrace.contracts.language.durations import Duration
from tailrace.contracts.language.names import FIELD_LENGTH, FIELD_PATTERN

FieldName = Annotated[str, StringConstraints(pattern=FIELD_PATTERN, max_length=FIELD_LENGTH)]
Category = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Categories = Annotated[list[Category], Field(min_length=1, max_length=1000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

HOUR = 3_600_000
MINUTE = 60_000


class Section(BaseModel):
    """A part of a contract: unknown keys are errors, nothing is converted silently, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )


class Key(Section):
    """The field that keys every request, label and action, and so decides their partition."""

    name: FieldName = "request_id"
    type: Literal["string", "integer"] = "string"


class EventTime(Section):
    """The field that says when it happened; a record without it happened when it was appended."""

    name: FieldName = "event_time"
    lateness_ms: Duration = Field(HOUR, alias="lateness")
    """How far behind its partition's largest event time a record may be and still count in its window."""
    skew_ms: Duration = Field(5 * MINUTE, alias="skew")
    """How far ahead of its append time an event time may be; beyond it the record is a dead letter."""
    early_1970: bool = False
    """Whether events are of 1 January to 26 April 1970; else such times are refused as seconds by mistake."""

    @property
    def ahead_ms(self) -> int:
        """How far ahead of its append time a watermark record may be: the last of a replay is the lateness ahead of the
        last record. No honest one is further ahead, whoever owns the lane's clock.
        """
        return self.skew_ms + self.lateness_ms


def _kind_of_categories(data: Any) -> Any:
    """``{categories: [...]}`` alone is of type category."""
    if isinstance(data, dict) and "categories" in data and "type" not in data:
        return {"type": "category", **data}
    return data


class _Checked(Section):
    """What a feature and a context field have in common."""

    type: str
    categories: Categories | None = None
    unit: str | None = None
    min: Finite | None = None
    max: Finite | None = None
    unseen: Category | None = None
    """``reject``, or the category that an unseen one becomes; None where the field has no categories."""
    protected: bool = False
    """A protected attribute: fairness is judged by it."""
    personal: bool = False
    """Personal data: erased on request."""

    _kind = model_validator(mode="before")(_kind_of_categories)

    @model_validator(mode="after")
    def _default_unseen(self) -> _Checked:
        if self.type == "category" and self.unseen is None:
            self.__dict__["unseen"] = "reject"
        return self


class Feature(_Checked):
    """An input that a version of the model may use."""

    type: Literal["number", "integer", "boolean", "category"]
    missing: Literal["reject", "impute", "pass"] = "reject"
    """A missing value makes the row a dead letter, takes the package's value, or goes to the model."""


class ContextField(_Checked):
    """Logged with the prediction; for policy, slices and value; never given to a model."""

    type: Literal["number", "integer", "boolean", "category", "string"]
    missing: Literal["reject", "pass"] = "pass"


class Target(Section):
    """What is predicted: boolean is binary, categories are multiclass, number is regression."""

    name: FieldName
    type: Literal["boolean", "category", "number"]
    categories: Annotated[list[Category], Field(min_length=2, max_length=1000)] | None = None
    positive: Category | None = None
    """Of two categories, the one whose probability is the score; it makes the task binary."""

    _kind = model_validator(mode="before")(_kind_of_categories)
