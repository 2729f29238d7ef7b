"""What the typed data of packages has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Frozen(BaseModel):
    """Data that never changes, and is of its types to the letter.

    Fields that are not known here are of a later version of Tailrace. They are kept as they are, so that digests stay
    what they were.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
