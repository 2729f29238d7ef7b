"""The features that a model reads."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

InputType = Literal["number", "integer", "boolean", "category"]


class Input(BaseModel):
    """A feature that the model reads.

    ``categories`` are those of the contract that the version was built under, in its order (empty for other
    types); ``levels`` those of the categorical column that an estimator was fitted on, None where it was a
    column of text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    type: InputType
    categories: tuple[str, ...] = ()
    levels: tuple[str, ...] | None = None
