"""What the typed data of packages has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Frozen(BaseModel):
    """Data that never changes, and is of its types to the letter."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
