"""Rows of CSV files as requests and labels, and contracts drafted from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tailrace.contracts.instants import read_time
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.problems import ContractError
from tailrace.errors import TailraceError, UsageError
from tailrace.files.contents import content_digest
from tailrace.files.data_mapping import DataMapping, find_mapping, load_mapping, mapping_path, save_mapping
from tailrace.files.drafting.draft import Drafted, DraftOptions, draft, write
from tailrace.files.rows import read_rows

NOW = 1_700_000_000_000
MINUTE = 60_000

CONTRACT = load_contract("""\
model: m
owner: {team: t}
key: {name: customer, type: integer}
event_time: {name: at}
features:
  size: {type: number, missing: impute}
  count: {type: integer}
  open: {type: boolean}
  colour: {categories: ["1", "2"]}
context:
  note: {type: string}
target: {name: good, type: boolean}
labels: {horizon: 1d}
""")
HEADER = "at,customer,size,count,open,Colour,note,grade\n"
ROWS = HEADER + (
    "2024-01-01T00:02:00Z,7,1.5,2,yes,1,a,8\n"
    "2024-01-01T00:01:00Z,8,,3,0,2,,5\n"
    "2024-01-01T00:01:00Z,9,3,4,true,1,c,\n"
)
MAPPING = DataMapping.model_validate(
    {"model": "m", "target": "grade >= 7", "time": "at", "columns": {"colour": "Colour"}}
)


def rows(
    tmp_path: Path, text: str = ROWS, mapping: DataMapping | None = MAPPING, **options: Any
) -> pl.DataFrame:
    csv = tmp_path / "f.csv"
    csv.write_text(text)
    return read_rows(csv, mapping, CONTRACT, **options)


def ids(tmp_path: Path, *numbers: int) -> list[str]:
    """Request ids of rows of the file that ``rows`` wrote last."""
    return [f"m-{content_digest(tmp_path / 'f.csv')[:10]}-{number:07}" for number in numbers]


def test_rows_are_typed_named_by_the_contract_and_in_order_of_time(tmp_path: Path) -> None:
    frame = rows(tmp_path)
    first = read_time("2024-01-01T00:01:00Z")
    expected = pl.DataFrame(
        {
            "request_id": ids(tmp_path, 1, 2, 0),
            "customer": [8, 9, 7],
            "at": [first, first, first + MINUTE],
            "size": [None, 3.0, 1.5],
            "count": [3, 4, 2],
            "open": [False, True, True],
            "colour": ["2", "1", "1"],
            "note": [None, "c", "a"],
            "good": [False, None, True],
        }
    )
    assert frame.schema == expected.schema
    assert frame.equals(expected)


def test_a_row_keeps_its_id_whatever_is_selected(tmp_path: Path) -> None:
    everything = rows(tmp_path)
    selected = rows(tmp_path, where="count >= 3 AND open = 'true'")
    assert selected["request_id"].to_list() == ids(tmp_path, 2)
    assert rows(tmp_path, limit=2).equals(everything.head(2))


def test_where_is_checked_and_unknown_is_left_out(tmp_path: Path) -> None:
    assert rows(tmp_path, where="size > 1")["size"].to_list() == [3.0, 1.5]
    with pytest.raises(
        UsageError, match="--where 'sise > 1': there is no field 'sise' here; did you mean 'size'"
    ):
        rows(tmp_path, where="sise > 1")
    with pytest.raises(UsageError, match="is a number, where true or false is needed"):
        rows(tmp_path, where="size")


@pytest.mark.parametrize(
    ("was", "is_", "complaint"),
    [
        ("1.5", "big", "row 1, column 'size': 'big' is not of type number"),
        (",2,yes", ",2.5,yes", r"row 1, column 'count': '2.5' is not of type integer"),
        ("true", "maybe", "row 3, column 'open': 'maybe' is not of type boolean"),
        ("2024-01-01T00:02:00Z", "yesterday", "row 1, column 'at': 'yesterday' is not a time as"),
        (
            "2024-01-01T00:02:00Z",
            "1895-01-01T00:00:00Z",
            "row 1: '1895-01-01T00:00:00Z' would lie before 1900",
        ),
    ],
)
def test_a_cell_of_another_type_is_named(tmp_path: Path, was: str, is_: str, complaint: str) -> None:
    assert was in ROWS
    with pytest.raises(TailraceError, match=complaint):
        rows(tmp_path, ROWS.replace(was, is_, 1))


def test_a_time_that_cannot_be_is_named_by_its_row_of_the_file(tmp_path: Path) -> None:
    text = ROWS.replace("2024-01-01T00:01:00Z,9", "1895-01-01T00:00:00Z,9")
    with pytest.raises(TailraceError, match="row 3: '1895-01-01T00:00:00Z' would lie before 1900"):
        rows(tmp_path, text, where="customer >= 8")


def test_a_missing_column_is_named_unless_it_is_context(tmp_path: Path) -> None:
    with pytest.raises(TailraceError, match="has no column 'count'; did you mean 'county'"):
        rows(tmp_path, ROWS.replace("count", "county"))
    frame = rows(tmp_path, ROWS.replace("note", "remark"))
    assert frame["note"].to_list() == [None, None, None]
    assert frame["note"].dtype == pl.String


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        ("1970-01-02", 86_400_000),
        ("1970-01-02 00:00:00", 86_400_000),
        ("1970-01-02T02:00:00+02:00", 86_400_000),
        ("1970-01-02T00:00:00.250Z", 86_400_250),
    ],
)
def test_times_without_a_zone_are_utc(given: str, milliseconds: int) -> None:
    assert read_time(given) == milliseconds


@pytest.mark.parametrize(("unit", "scale"), [("seconds", 1), ("milliseconds", 1000)])
def test_times_as_numbers(tmp_path: Path, unit: str, scale: int) -> None:
    text = ROWS
    for minute in (1, 2):
        text = text.replace(f"2024-01-01T00:0{minute}:00Z", str((1_704_067_200 + 60 * minute) * scale))
    assert rows(tmp_path, text).drop("request_id").equals(rows(tmp_path).drop("request_id"))


def test_rows_without_times_are_evenly_apart(tmp_path: Path) -> None:
    mapping = MAPPING.model_validate(
        {
            **MAPPING.model_dump(by_alias=True, exclude_none=True),
            "time": None,
            "every": "30min",
            "start": "1996-05-07T00:00:00Z",
        }
    )
    start = read_time("1996-05-07")
    frame = rows(tmp_path, mapping=mapping)
    assert frame["at"].to_list() == [start, start + 30 * MINUTE, start + 60 * MINUTE]
    assert frame["request_id"].to_list() == ids(tmp_path, 0, 1, 2)


def test_without_a_mapping_the_names_must_fit(tmp_path: Path) -> None:
    text = (
        ROWS.replace("Colour", "colour")
        .replace("grade", "good")
        .replace(",8\n", ",true\n")
        .replace(",5\n", ",no\n")
    )
    assert rows(tmp_path, text, None)["good"].to_list() == [False, None, True]
    with pytest.raises(TailraceError, match="has no column 'at'"):
        rows(tmp_path, text.replace("at,", "when,", 1), None)


def test_a_mapping_is_written_and_read_back(tmp_path: Path) -> None:
    save_mapping(MAPPING, mapping_path(tmp_path, "m"))
    assert load_mapping(mapping_path(tmp_path, "m")) == MAPPING
    assert find_mapping(tmp_path, "m") == MAPPING
    assert find_mapping(tmp_path, "n") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model: m\n", "write either time: COLUMN or every: 30min"),
        ("model: m\nevery: 1min\n", "write both or neither"),
        ("model: m\ntime: t\nkeys: k\n", "keys: is no field of a contract here; did you mean 'key'"),
        ("model: m\nevery: 1min\nstart: soon\n", "'soon' is not a time"),
    ],
)
def test_a_wrong_mapping_says_what_to_do(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ContractError, match=complaint):
        load_mapping(path)


# --- init

CSV = (
    "When,Customer ID,order,colour,city,const,debt %,Score,label\n"
    + "\n".join(
        f"2024-01-0{1 + i % 9},c{i},{i % 30 - 3},{'red' if i % 3 else 'no'},town {i},1,{i / 10},{i % 40},{i % 2}"
        for i in range(60)
    )
    + "\n"
)


def drafted(tmp_path: Path, target: str, text: str = CSV, **options: Any) -> Drafted:
    csv = tmp_path / "f.csv"
    csv.write_text(text)
    return draft(csv, "m", target, DraftOptions(**options), team="t", now_ms=NOW)


def test_a_drafted_contract_is_minimal_valid_and_reads_its_file(tmp_path: Path) -> None:
    written = drafted(tmp_path, "label", time="When", key="Customer ID", context=["city"])
    assert (
        written.contract_text
        == """\
# Drafted from f.csv: `tailrace contracts show m --resolved` prints all defaults.
model: m
owner: {team: t}
key: {name: Customer_ID, type: string}
event_time: {name: When}
features:
  order: {type: integer}
  colour: {categories: ['no', red]}
  debt: {type: number, min: 0}
  Score: {type: integer, min: 0}
context:
  city: {type: string}
target: {name: label, type: boolean}
labels: {horizon: 30d}
""".replace("'no'", "no")
    )
    assert written.mapping.columns == {"debt": "debt %"}
    assert [
        note for note in written.notes if "'const' is left out: it has the same value in every row" in note
    ]
    frame = read_rows(tmp_path / "f.csv", written.mapping, written.contract)
    assert frame.height == 60
    assert frame["label"].sum() == 30
    assert frame["Customer_ID"][0] == "c0"


def test_text_of_many_values_is_no_feature(tmp_path: Path) -> None:
    written = drafted(tmp_path, "label")
    assert "city" not in written.contract.features
    assert [
        note
        for note in written.notes
        if "'city' is left out: nearly every row has a value of its own" in note
    ]


@pytest.mark.parametrize(
    ("values", "task", "note"),
    [
        (("no", "yes"), "binary", "the probability of 'yes'"),
        (("Y", "N"), "binary", "the probability of 'Y'"),
        (("stays", "leaves"), "multiclass", "`--positive stays`"),
    ],
)
def test_a_target_of_two_texts(tmp_path: Path, values: tuple[str, str], task: str, note: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text("x,y\n" + "".join(f"{row % 50},{values[row % 2]}\n" for row in range(60)))
    written = draft(path, "m", "y", DraftOptions(), team="t", now_ms=0)
    assert written.contract.task == task
    assert [line for line in written.notes if note in line]
    first = read_rows(path, written.mapping, written.contract)["y"][0]
    assert first == {"no": False, "Y": True, "stays": "stays"}[values[0]]


def test_a_column_of_times_that_is_not_named_is_pointed_at(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    days = [f"2024-0{1 + row // 28}-{1 + row % 28:02}" for row in range(60)]
    path.write_text("x,seen,y\n" + "".join(f"{row % 50},{day},{row % 2}\n" for row, day in enumerate(days)))
    written = draft(path, "m", "y", DraftOptions(), team="t", now_ms=0)
    assert [note for note in written.notes if "add `--time seen`" in note]
    assert not [
        note
        for note in draft(path, "m", "y", DraftOptions(time="seen"), team="t", now_ms=0).notes
        if "--time" in note
    ]


@pytest.mark.parametrize(
    ("target", "options", "name", "kind", "task", "first"),
    [
        ("label", {}, "label", "boolean", "binary", False),
        ("label", {"positive": "0"}, "label", "boolean", "binary", True),
        ("colour", {}, "colour", "category", "multiclass", "no"),
        ("colour", {"positive": "no"}, "colour", "boolean", "binary", True),
        ("order", {}, "order", "number", "regression", -3.0),
        ("order >= -3", {}, "order_at_least_minus_3", "boolean", "binary", True),
        ("order * 2", {}, "order_2", "number", "regression", -6.0),
        ("CASE WHEN order > 0 THEN 'up' ELSE 'down' END", {}, None, "category", "multiclass", "down"),
    ],
)
def test_targets(
    tmp_path: Path, target: str, options: Any, name: str | None, kind: str, task: str, first: Any
) -> None:
    written = drafted(tmp_path, target, **options)
    contract: ModelContract = written.contract
    assert contract.target.name == name or name is None
    assert (contract.target.type, contract.task) == (kind, task)
    assert written.mapping.target is not None
    assert not any(column in contract.features for column in ("label", "colour", "order") if column in target)
    frame = read_rows(tmp_path / "f.csv", written.mapping, contract)
    assert frame[contract.target.name][0] == first


def test_reserved_names_are_changed_and_request_ids_are_kept(tmp_path: Path) -> None:
    text = "request_id,value,action,y\n" + "".join(f"r{i},{i},{i % 3},{i % 2}\n" for i in range(9))
    written = drafted(tmp_path, "y", text, key="request_id")
    assert list(written.contract.features) == ["value_2", "action_2"]
    assert written.contract.key.name == "request_id"
    frame = read_rows(tmp_path / "f.csv", written.mapping, written.contract)
    assert frame["request_id"].to_list() == [f"r{i}" for i in range(9)]
    assert frame["value_2"].to_list() == list(range(9))


def test_a_column_called_event_time_leaves_that_name_to_the_event_time(tmp_path: Path) -> None:
    text = "event_time,y\n" + "".join(f"{i * 7 % 10},{i % 2}\n" for i in range(10))
    written = drafted(tmp_path, "y", text)
    assert list(written.contract.features) == ["event_time_2"]
    frame = read_rows(tmp_path / "f.csv", written.mapping, written.contract)
    assert frame["event_time_2"].to_list() == [i * 7 % 10 for i in range(10)]
    assert frame["event_time"].is_sorted()


def test_a_file_without_times_ends_about_now(tmp_path: Path) -> None:
    written = drafted(tmp_path, "label", every_ms=30 * MINUTE)
    times = read_rows(tmp_path / "f.csv", written.mapping, written.contract)["event_time"]
    assert NOW - 31 * MINUTE <= times[-1] <= NOW
    assert times[1] - times[0] == 30 * MINUTE


@pytest.mark.parametrize(
    ("target", "options", "complaint"),
    [
        (
            "lable",
            {},
            "'lable' is neither a column nor an expression: there is no field 'lable' here; did you mean",
        ),
        ("label", {"time": "Wen"}, "--time 'Wen': .* has no such column; did you mean 'When'"),
        ("label", {"context": ["town"]}, "--context 'town'"),
        ("label", {"positive": "2"}, "--positive '2': no row has it"),
        ("label", {"time": "When", "every_ms": 5}, "--every is for files without times"),
        ("order > 3", {"positive": "1"}, "say it in the expression instead"),
        ("city", {}, "has 60 different values"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, target: str, options: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        drafted(tmp_path, target, **options)


def test_a_file_that_gives_nothing(tmp_path: Path) -> None:
    with pytest.raises(TailraceError, match="has no rows"):
        drafted(tmp_path, "a", "a,b\n")
    with pytest.raises(TailraceError, match="cannot be read: No such file"):
        draft(tmp_path / "missing.csv", "m", "a", DraftOptions(), team="t", now_ms=NOW)
    with pytest.raises(TailraceError, match="no column is left to be a feature"):
        drafted(tmp_path, "a", "a,b\n1,1\n0,1\n")


def test_writing_never_overwrites_by_accident(tmp_path: Path) -> None:
    written = drafted(tmp_path, "label")
    contract_path, data_path = write(written, tmp_path)
    assert load_contract(contract_path) == written.contract
    assert load_mapping(data_path) == written.mapping
    with pytest.raises(UsageError, match="is there already"):
        write(written, tmp_path)
    write(written, tmp_path, overwrite=True)


# --- Rows, words and files of other people


def test_a_row_without_a_time_is_left_out_and_said(tmp_path: Path) -> None:
    notes: list[str] = []
    frame = rows(tmp_path, ROWS.replace("2024-01-01T00:02:00Z", "", 1), say=notes.append)
    assert frame["request_id"].to_list() == ids(tmp_path, 1, 2)
    assert notes == ["1 rows have no event time in 'at' and are left out: fill it in to keep them"]


def test_what_the_condition_leaves_out_may_be_anything(tmp_path: Path) -> None:
    with pytest.raises(TailraceError, match="'big' is not of type number"):
        rows(tmp_path, ROWS.replace("1.5", "big"))
    frame = rows(tmp_path, ROWS.replace("1.5", "big"), where="note = 'c'")
    assert frame["request_id"].to_list() == ids(tmp_path, 2)


def test_two_files_share_no_request_id_and_a_copy_shares_all(tmp_path: Path) -> None:
    for name, text in (("one", ROWS), ("other", ROWS.replace("1.5", "2.5")), ("copy", ROWS)):
        (tmp_path / name).write_text(text)
    one, other, copy = (
        set(read_rows(tmp_path / name, MAPPING, CONTRACT)["request_id"]) for name in ("one", "other", "copy")
    )
    assert not one & other
    assert one == copy


def test_another_delimiter_than_the_mapping_says_is_named(tmp_path: Path) -> None:
    mapping = DataMapping.model_validate(
        {**MAPPING.model_dump(by_alias=True, exclude_none=True), "format": {"delimiter": ";"}}
    )
    with pytest.raises(TailraceError, match=r"is the delimiter ';', as contracts/data/m\.yaml says"):
        rows(tmp_path, mapping=mapping)


@pytest.mark.parametrize("words", [["not:NA"], ["not:na"]])
def test_a_word_that_is_a_value_makes_its_column_text(tmp_path: Path, words: list[str]) -> None:
    text = "x,v,y\n" + "".join(f"{n * 7 % 50},{'NA' if n % 4 else n % 5},{n % 2}\n" for n in range(60))
    assert drafted(tmp_path, "y", text).contract.features["v"].type == "integer"
    kept = drafted(tmp_path, "y", text, missing=words).contract.features["v"]
    assert kept.categories is not None
    assert "NA" in kept.categories


def test_ids_with_leading_zeros_are_two_keys(tmp_path: Path) -> None:
    text = "cust,x,y\n" + "".join(
        f"{n if n % 2 else f'{n - 1:03}'},{n * 7 % 50},{n % 3 % 2}\n" for n in range(1, 61)
    )
    written = drafted(tmp_path, "y", text, key="cust")
    assert written.contract.key.type == "string"
    keys = read_rows(tmp_path / "f.csv", written.mapping, written.contract)["cust"]
    assert {"1", "001"} <= set(keys.to_list())
    assert keys.n_unique() == 60


def test_a_minimum_is_drafted_with_a_word(tmp_path: Path) -> None:
    notes = drafted(tmp_path, "label").notes
    assert [note for note in notes if note.startswith("min: 0 is drafted for debt, Score, as no value")]


def test_a_column_of_numbers_and_a_few_words_is_read_again_as_it_was_drafted(tmp_path: Path) -> None:
    text = "x,v,y\n" + "".join(f"{n * 7 % 50},{'unknown' if n == 3 else n / 4},{n % 2}\n" for n in range(60))
    written = drafted(tmp_path, "y", text)
    assert written.mapping.missing.columns == {"v": ["unknown"]}
    assert written.contract.features["v"].missing == "impute"
    assert read_rows(tmp_path / "f.csv", written.mapping, written.contract)["v"].null_count() == 1
