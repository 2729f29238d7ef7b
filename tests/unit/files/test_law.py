"""The law: what init writes, train and replay take of the same file, and scorers without a dead letter."""

from __future__ import annotations

import csv
import io
import string
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tailrace.avro.columns.bytes_column import NULL, BytesColumn
from tailrace.avro.columns.decoder import Column
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError, UsageError
from tailrace.files.data_mapping import load_mapping
from tailrace.files.drafting.draft import DraftOptions, draft, write
from tailrace.files.rows import read_rows
from tailrace.models.train import as_scored
from tailrace.scorer.steps.check_input import InputCheck

NOW = 1_767_225_600_000
WORDS = ["NA", "n/a", "NaN", "null", "None", "?", "-", "", " "]
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12) | st.sampled_from(
    [
        "yes",
        "no",
        "true",
        "0",
        "1",
        "007",
        "1,5",
        "1.5",
        "#1",
        "a,b",
        'say "x"',
        "two\nlines",
        "2024-01-01",
        *WORDS,
    ]
)
NUMBERS = (
    st.integers(-(10**6), 10**6).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.decimals(-1000, 1000, places=2).map(str)
)
CELLS: list[st.SearchStrategy[str]] = [
    TEXTS,
    NUMBERS,
    NUMBERS | st.sampled_from(WORDS),
    st.sampled_from(["red", "green", "blue"]),
    st.sampled_from(["red", "NA", ""]),
    st.integers(0, 2**70).map(str),
    st.sampled_from(["true", "false", "TRUE"]),
    st.decimals(-1000, 1000, places=2).map(lambda number: f"{number}".replace(".", ",")),
    st.sampled_from(["1,234", "12,345.5", "999"]),
]


@st.composite
def files(draw: Any) -> tuple[bytes, str]:
    """A CSV file with columns of any kinds and a target, and its target's name."""
    height = draw(st.integers(2, 40))
    names = draw(st.lists(st.text(string.printable[:95], max_size=8), min_size=1, max_size=4))
    columns = [draw(st.lists(draw(st.sampled_from(CELLS)), min_size=height, max_size=height)) for _ in names]
    target = draw(st.lists(st.sampled_from(["a", "b", "?"]) | st.just("a"), min_size=height, max_size=height))
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerow([*names, "truth of it"])
    writer.writerows(zip(*columns, target, strict=True))
    return out.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))), "truth of it"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(files())
def test_what_init_writes_is_taken(file: tuple[bytes, str]) -> None:
    data, target = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes(data)
        try:
            drafted = draft(path, "m", target, DraftOptions(), team="t", now_ms=NOW)
        except (UsageError, TailraceError):
            # It may refuse, in a sentence: nothing is written then.
            reject()
        _, mapping = write(drafted, Path(folder))
        rows = read_rows(path, load_mapping(mapping), drafted.contract)
    assert dead_letters(rows.to_dict(as_series=False), drafted.contract) == {}
    assert as_scored(rows, drafted.contract, say=lambda note: None).equals(rows)


def dead_letters(rows: dict[str, list[Any]], contract: ModelContract) -> dict[int, str]:
    """Why a scorer would refuse rows."""
    count = len(rows["request_id"])
    times = np.array(rows[contract.event_time.name], dtype=np.int64)
    columns = {
        name: _column(rows[name], field.type)
        for name, field in (contract.features | contract.context).items()
    }
    columns[contract.event_time.name] = Column(times, np.ones(count, dtype=np.bool_))
    bad = InputCheck(contract).run(columns, times, np.full(count, NOW, np.int64)).bad
    return {row: str(error) for row, error in bad.items()}


def _column(values: list[Any], kind: str) -> Column:
    """As the decoder gives it."""
    present = np.array([value is not None for value in values])
    if kind in ("category", "string"):
        texts = BytesColumn.of([(value or "").encode() for value in values])
        return Column(BytesColumn(texts.data, np.where(present, texts.begins, NULL), texts.ends), present)
    if kind == "integer":
        return Column(np.array([value or 0 for value in values], dtype=np.int64), present)
    return Column(np.array([np.nan if value is None else float(value) for value in values]), present)
