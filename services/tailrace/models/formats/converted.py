"""What a conversion gives: a model part in bytes, how it is run, and how far it may be from what was converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tailrace.models.inputs import Input
from tailrace.models.manifest import Conversion, Tolerance

DOUBLE = Tolerance(absolute=1e-9, relative=1e-9)
SINGLE = Tolerance(absolute=1e-5, relative=1e-5)


@dataclass(frozen=True)
class Converted:
    """A model part, and how it is run."""

    data: bytes
    format: Literal["onnx", "skops"]
    feed: Literal["columns", "matrix"]
    inputs: tuple[Input, ...]
    missing_category: Literal["empty", "none", "nan"]
    output: str
    tolerance: Tolerance
    conversion: Conversion | None = None
