"""The features that a model reads."""

from __future__ import annotations

from typing import Literal

from tailrace.models.frozen import Frozen

InputType = Literal["number", "integer", "boolean", "category"]


class Input(Frozen):
    """A feature that the model reads.

    ``categories`` are those of the contract that the version was built under, in its order (empty for other types);
    ``levels`` those of the categorical column that an estimator was fitted on, None where it was a column of text.
    ``column`` is what the model calls it where that is not the feature's name; None is left out of the bytes.
    """

    name: str
    type: InputType
    categories: tuple[str, ...] = ()
    levels: tuple[str, ...] | None = None
    column: str | None = None

    @property
    def called(self) -> str:
        """What the model calls it."""
        return self.column or self.name
