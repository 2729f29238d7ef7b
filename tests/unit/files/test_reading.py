"""Files read whole: encodings, real files against pandas and polars, and a DuckDB that reads one file only."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from tests.support.real_data import real_data

from tailrace.errors import TailraceError, UsageError
from tailrace.files.contents import content_digest, text_of
from tailrace.files.csv_reader import _shut_in
from tailrace.files.table import read_table


def _file(folder: Path, name: str) -> Path:
    """The real file, or where that is missing one like it."""
    if (real := real_data(name)) is not None:
        return real
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": draw.normal(size=500), "b": draw.integers(0, 9, 500), "c": draw.choice(["x", "y"], 500)}
    )
    frame.to_csv(folder / name, index=False)
    return folder / name


@pytest.mark.parametrize("name", ["electricity.csv", "wine_quality.csv"])
def test_values_are_those_of_pandas_and_polars(name: str, tmp_path: Path) -> None:
    file = _file(tmp_path, name)
    ours = read_table(file).typed()
    theirs, others = pd.read_csv(file), pl.read_csv(file, infer_schema_length=None)
    assert ours.columns == list(theirs.columns) == others.columns
    for column in ours.columns:
        if ours[column].dtype.is_numeric():
            np.testing.assert_array_equal(ours[column].to_numpy(), theirs[column].to_numpy())
            np.testing.assert_array_equal(ours[column].to_numpy(), others[column].to_numpy())
        else:
            assert ours[column].to_list() == [str(value).strip() for value in theirs[column]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_that_say_so_are_found(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    content = "x,k\n1,é\n2,😁\n"
    file.write_bytes(content.encode(encoding))
    with text_of(file) as text:
        assert text.path.read_text(encoding="utf-8") == content
        assert text.encoding == encoding.removesuffix("-sig")
        assert not text.note


def test_an_encoding_that_is_told_is_held_to(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_bytes("x,k\n1,я\n".encode("cp1251"))
    assert read_table(file, encoding="cp1251").frame["k"].to_list() == ["я"]
    with pytest.raises(TailraceError, match="line 2 is not utf-8"), text_of(file, "utf-8"):
        pass
    with pytest.raises(UsageError, match="--encoding 'klingon' is not known"), text_of(file, "klingon"):
        pass


@pytest.mark.parametrize(
    ("content", "encoding", "read", "line"),
    [
        (b"x,k\n1,caf\xe9\n", "cp1252", "x,k\n1,café\n", 2),
        (b"x,k\n1,\x81\xe9\n", "latin-1", "x,k\n1,\x81é\n", 2),
        # The file ends within a letter.
        ("x,k\n1,a\n2,é".encode()[:-1], "cp1252", "x,k\n1,a\n2,Ã", 3),
        ("x,k\n1,Á\n2,é".encode()[:-1], "latin-1", "x,k\n1,Ã\x81\n2,Ã", 3),
        # What windows-1252 has no letter for stands a megabyte before what is not UTF-8.
        (
            "1,Á\n".encode() + b"1,a\n" * 300_000 + b"1,\xe9\n",
            "latin-1",
            "1,Ã\x81\n" + "1,a\n" * 300_000 + "1,é\n",
            300_002,
        ),
    ],
    ids=["windows", "no windows", "cut off", "cut off, no windows", "long"],
)
def test_what_is_not_utf_8_is_read_as_western_letters(
    content: bytes, encoding: str, read: str, line: int, tmp_path: Path
) -> None:
    file = tmp_path / "f.csv"
    file.write_bytes(content)
    with text_of(file) as text:
        assert (text.encoding, text.path.read_bytes().decode()) == (encoding, read)
        assert text.note.startswith(f"line {line} is not UTF-8: the file is read as {encoding};")


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (b"1st_floor,area\n10,20\n30,40\n", {"1st_floor": ["10", "30"], "area": ["20", "40"]}),
        (b"A,a\n1,2\n3,4\n", {"A": ["1", "3"], "a_2": ["2", "4"]}),
        (b"a,b,\n1,2,\n3,4,\n", {"a": ["1", "3"], "b": ["2", "4"]}),
    ],
    ids=["a digit first", "names that differ in capitals", "a delimiter at the end"],
)
def test_each_name_of_a_header_is_one_column(
    content: bytes, columns: dict[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "f.csv").write_bytes(content)
    assert read_table(tmp_path / "f.csv").frame.to_dict(as_series=False) == columns


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_row_that_is_left_out_is_told_by_its_line(end: str, tmp_path: Path) -> None:
    lines = ["a,b", *(f"{number},{number}" for number in range(20)), "1,2,3", "7,8", ""]
    (tmp_path / "f.csv").write_bytes(end.join(lines).encode())
    table = read_table(tmp_path / "f.csv")
    assert table.frame.height == 21
    [note] = table.notes
    assert note.startswith("1 rows have more or fewer values than the header has names: lines 22. They")


def test_times_of_parquet_are_of_their_zone(tmp_path: Path) -> None:
    noon = datetime(2024, 1, 1, 12, 0, 0, 250_000)
    frame = pl.DataFrame({"bare": [noon, None], "there": [noon, None]}).with_columns(
        pl.col("there").dt.replace_time_zone("Asia/Kolkata")
    )
    frame.write_parquet(tmp_path / "f.parquet")
    assert read_table(tmp_path / "f.parquet").frame.to_dict(as_series=False) == {
        "bare": ["2024-01-01T12:00:00.250000", None],
        "there": ["2024-01-01T06:30:00.250000", None],
    }


def test_a_digest_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert (
        content_digest(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize("other", ["/etc/passwd", "https://localhost:1/x.csv", "s3://bucket/x.csv"])
def test_duckdb_reads_this_file_and_no_other(other: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    connection = _shut_in(tmp_path / "data.csv")
    [row] = connection.execute("SELECT * FROM read_csv(?)", [str(tmp_path / "data.csv")]).fetchall()
    assert row == (1, 2)
    with pytest.raises(duckdb.Error, match="disabled by configuration"):
        connection.execute("SELECT * FROM read_csv(?)", [other])
    with pytest.raises(duckdb.Error):
        connection.execute("SET enable_external_access = true")
    with pytest.raises(duckdb.Error):
        connection.execute("INSTALL httpfs")
    connection.close()


def test_the_command_line_starts_without_duckdb() -> None:
    program = "import sys, tailrace.cli.app, tailrace.files.rows; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
