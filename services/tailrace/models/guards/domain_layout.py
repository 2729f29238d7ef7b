"""How a row is encoded for the distance of the domain guard: of which input each encoded column is, and what of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from tailrace.models.columns import Array, Coded, coded, plain
from tailrace.models.inputs import Input

NULL = -1
"""The code of a missing category."""
ABSENT, NUMBER = -3, -4
"""What an encoded column may hold beside an indicator of a code: one of a missing number, and the number itself."""


def layout_of(inputs: tuple[Input, ...], marked: Collection[str]) -> Array:
    """[columns, 2]: by encoded column, its input's number, and the code that it indicates, ``ABSENT`` or ``NUMBER``."""
    layout: list[tuple[int, int]] = []
    for number, i in enumerate(inputs):
        if i.type == "category":
            layout += [(number, code) for code in (*range(len(i.categories)), NULL)]
        else:
            layout += [(number, NUMBER), (number, ABSENT)][: 1 + (i.name in marked)]
    return np.array(layout, dtype=np.int64)


def encoded_values(columns: Mapping[str, Coded], rows: int, inputs: tuple[Input, ...]) -> Array:
    """[inputs, rows]: numbers as they are, categories as codes."""
    encoded = np.empty((len(inputs), rows))
    for values, i in zip(encoded, inputs, strict=True):
        column = columns[i.name]
        # NULL where a category is missing, below that where it is none of them.
        values[:] = coded(column).in_terms_of(i.categories) if i.type == "category" else plain(column)
    return encoded
