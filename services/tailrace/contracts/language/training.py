"""The section of a contract that says what is trained, when, and on what."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from tailrace.contracts.language.durations import Duration
from tailrace.contracts.language.fields import Finite, Section
from tailrace.contracts.language.sections import DAY, Count, Label, OneOf
from tailrace.contracts.problems import did_you_mean
from tailrace.templates.table import DEFAULT, TEMPLATE
from tailrace.templates.team_templates import TEAM_PATTERN


class Trigger(OneOf):
    """What starts a retraining."""

    drift: Literal["alert"] | None = None
    """A drift alert."""
    quality: Literal["alert"] | None = None
    """A quality alert."""
    every_ms: Duration | None = Field(None, alias="every")
    """A schedule."""
    labels: Count | None = None
    """So many new labels."""


def _template(name: str) -> str:
    if name not in TEMPLATE and not re.fullmatch(TEAM_PATTERN, name):
        raise ValueError(f"{name!r} is not allowed; {did_you_mean(name, TEMPLATE)}")
    return name


TemplateName = Annotated[
    str,
    AfterValidator(_template),
    WithJsonSchema({"anyOf": [{"enum": list(TEMPLATE)}, {"type": "string", "pattern": TEAM_PATTERN}]}),
]


class Training(Section):
    template: TemplateName = DEFAULT.name
    """What is trained."""
    options: dict[Label, bool | int | Finite | str] | None = None
    """The template's options."""
    window_ms: Duration = Field(180 * DAY, alias="window")
    """Event time of outcomes to train on."""
    triggers: list[Trigger] = Field([Trigger(drift="alert"), Trigger(quality="alert")])
    """Any of them starts a run."""
    min_labels: Count = 1000
    """Mature ones, from after the change."""
    cooldown_ms: Duration = Field(7 * DAY, alias="cooldown")
    """Least time between two runs."""
    calibrate: Literal["never"] | None = None
    """``never`` leaves probabilities as the model gives them; by default they are calibrated where that helps."""
