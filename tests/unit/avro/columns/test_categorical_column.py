"""Columns of texts by their codes, against lists of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.avro.columns.categorical_column import UNKNOWN, CategoricalColumn

VALUES = st.lists(st.none() | st.sampled_from(["a", "b", "", "ä"]) | st.text(max_size=2), min_size=1)


@given(VALUES)
def test_texts_are_what_they_were_made_of(values: list[str | None]) -> None:
    texts = CategoricalColumn.of(values)
    assert texts.tolist() == texts.objects().tolist() == values
    assert len(set(texts.known)) == len(texts.known)


@given(VALUES, st.data())
def test_some_rows_in_any_order(values: list[str | None], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(values) - 1)))
    taken = CategoricalColumn.of(values).take(np.array(rows, dtype=np.int64))
    assert taken.tolist() == [values[row] for row in rows]


@given(VALUES, st.data())
def test_rows_are_filled_and_the_others_stay(values: list[str | None], data: st.DataObject) -> None:
    where = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    value = data.draw(st.sampled_from(["a", "new"]))
    before = CategoricalColumn.of(values)
    filled = before.filled(np.array(where), value)
    assert filled.tolist() == [value if here else old for old, here in zip(values, where, strict=True)]
    assert before.tolist() == values


@given(VALUES, st.lists(st.text(max_size=2), unique=True))
def test_codes_in_terms_of_another_list(values: list[str | None], others: list[str]) -> None:
    codes = CategoricalColumn.of(values).in_terms_of(others).tolist()
    for value, code in zip(values, codes, strict=True):
        if value is None:
            assert code == UNKNOWN
        elif value in others:
            assert others[code] == value
        else:
            assert code < UNKNOWN
