"""FILE_KINDS: what kinds of files, times and targets there are, and what `init`, `train` and `replay` make of each.

tests/unit/files/test_file_kinds.py runs each entry, and docs/files.md is made of the same table:
``python -m tests.support.file_kinds > docs/files.md``.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tailrace.files.missing import WORDS

ROWS = 60


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        group: heading under which the page has it.
        name: the kind, for people.
        outcome: what happens to it, for people.
        data: the file's bytes.
        options: for `init`, as of DraftOptions; ``target`` is ``y`` where it is not named.
        says: texts that stand in what init says.
        expect: what must hold of the contract's features (name to type), or of rows: ``(field, row, value)``.
        refused: text of the refusal, where there is one.
    """

    group: str
    name: str
    outcome: str
    data: bytes
    options: dict[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    types: dict[str, str] = field(default_factory=dict)
    values: tuple[tuple[str, int, Any], ...] = ()
    task: str | None = None
    refused: str | None = None


def table(
    header: str, row: Callable[[int], str], rows: int = ROWS, encoding: str = "utf-8", end: str = "\n"
) -> bytes:
    """A file of text; ``row`` gives each line."""
    return (header + end + "".join(row(number) + end for number in range(rows))).encode(encoding)


def _x(number: int) -> str:
    return f"{(number * 37) % 101 / 4:g}"


def _plain(delimiter: str = ",", **how: Any) -> bytes:
    return table(delimiter.join("xky"), lambda n: delimiter.join([_x(n), "ab"[n % 2], str(n % 3 % 2)]), **how)


def _times(values: Callable[[int], str]) -> bytes:
    return table("t;x;y", lambda n: f"{values(n)};{_x(n)};{n % 3 % 2}")


def _targets(values: Callable[[int], str], rows: int = ROWS) -> bytes:
    return table("x,y", lambda n: f"{_x(n)},{values(n)}", rows)


def _column(values: Callable[[int], str], name: str = "v") -> bytes:
    return table(f"x;{name};y", lambda n: f"{_x(n)};{values(n)};{n % 3 % 2}")


def _parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(
        {
            "x": [n * 37 % 101 / 4 for n in range(ROWS)],
            "k": ["ab"[n % 2] for n in range(ROWS)],
            "tags": [["a"]] * ROWS,
            "y": [n % 3 % 2 == 1 for n in range(ROWS)],
        }
    ).write_parquet(buffer)
    return buffer.getvalue()


_QUOTED = ('"a""c\nd"', '"a,b"')
FILES, VALUES, TIMES, TARGETS = "Files", "Values", "Times", "Targets"
X_AND_K = {"x": "number", "k": "category"}
MIDNIGHT = 1_704_067_200_000
"""2024-01-01, UTC."""
_TIME = {"time": "t"}


def _instant(
    name: str, outcome: str, values: Callable[[int], str], first: int = MIDNIGHT, **more: Any
) -> FileKind:
    options = {**_TIME, **more.pop("options", {})}
    return FileKind(TIMES, name, outcome, _times(values), options, values=(("t", 0, first),), **more)


def _day(n: int) -> int:
    return n % 28 + 1


FILE_KINDS = (
    FileKind(FILES, "comma", "read", _plain(), types=X_AND_K),
    FileKind(FILES, "semicolon", "read", _plain(";"), types=X_AND_K),
    FileKind(FILES, "tab", "read", _plain("\t"), types=X_AND_K),
    FileKind(FILES, "vertical bar", "read", _plain("|"), types=X_AND_K),
    FileKind(FILES, "CR LF, or CR alone", "read", _plain(end="\r\n"), types=X_AND_K),
    FileKind(FILES, "line ends of several kinds", "read", _plain().replace(b"\n", b"\r\n", 7), types=X_AND_K),
    FileKind(FILES, "byte order mark", "read", b"\xef\xbb\xbf" + _plain(), types=X_AND_K),
    FileKind(FILES, "UTF-16", "read", _plain(encoding="utf-16"), types=X_AND_K),
    FileKind(
        FILES,
        "Windows-1252 or Latin-1",
        "read, said with the line; `--encoding` names another",
        table("x,k,y", lambda n: f"{_x(n)},{'éa'[n % 2]},{n % 3 % 2}", encoding="cp1252"),
        says=("line 2 is not UTF-8: the file is read as cp1252",),
        values=(("k", 0, "é"),),
    ),
    FileKind(FILES, "gzip", "unpacked and read", gzip.compress(_plain()), types=X_AND_K),
    FileKind(
        FILES,
        "Parquet",
        "read; lists, structs, bytes and durations are left out, said",
        _parquet(),
        types=X_AND_K,
        says=("'tags' is left out: it holds values of the kind List(String)",),
    ),
    FileKind(FILES, "a spreadsheet, a zip", "refused", b"PK\x03\x04" + b"0" * 99, refused="export it as CSV"),
    FileKind(
        FILES, "no header", "refused", table("1,2,0", lambda n: f"{_x(n)},{n},1"), refused="has no header"
    ),
    FileKind(FILES, "header alone", "refused", b"x,k,y\n", refused="has no rows"),
    FileKind(
        FILES,
        "zero bytes",
        "refused with the line",
        _plain().replace(b"a", b"\0", 1),
        refused="has a zero byte",
    ),
    FileKind(FILES, "blank lines", "no rows", _plain(end="\n\n"), types=X_AND_K, values=(("k", 1, "b"),)),
    FileKind(
        FILES,
        "rows of another length",
        "left out, said with their lines; refused where they are a tenth",
        _plain() + b"1,a,0,9\n",
        types=X_AND_K,
        says=("1 rows have more or fewer values than the header has names: lines 62",),
    ),
    FileKind(
        FILES,
        "a quote that is not closed",
        "refused with the line",
        _plain() + b'1,"a,0\n2,b,1\n',
        refused="line 62: a quote is opened and not closed",
    ),
    FileKind(
        FILES,
        "delimiters, quotes and line ends in quotes",
        "values",
        table("x,k,y", lambda n: f"{_x(n)},{_QUOTED[n % 2]},{n % 3 % 2}"),
        values=(("k", 1, "a,b"), ("k", 0, 'a"c\nd')),
    ),
    FileKind(
        FILES,
        "lines before the header",
        "passed over, said",
        b"Report of May\n\n" + _plain(),
        types=X_AND_K,
        says=("lines before the header are passed over; the first is 'Report of May'",),
    ),
    FileKind(
        FILES,
        "columns of one name, or of none",
        "named anew, said once",
        table("x,x,,y", lambda n: f"{_x(n)},{n % 7},{'ab'[n % 2]},{n % 3 % 2}"),
        types={"x": "number", "x_2": "integer", "column_3": "category"},
        says=(
            "the header names columns twice or not at all: 'x' is called 'x_2', 'a column without a name' is called",
        ),
    ),
    FileKind(
        FILES,
        "names that SQL cannot spell, or requests have already",
        "named anew, said with the reason",
        table("debt %,model,y", lambda n: f"{_x(n)},{'ab'[n % 2]},{n % 3 % 2}"),
        types={"debt": "number", "model_2": "category"},
        says=("'model' is called 'model_2': every request has a field 'model' of its own",),
    ),
    FileKind(
        VALUES, "spaces around a value", "cut off", _column(lambda n: f" {_x(n)} "), types={"v": "number"}
    ),
    FileKind(
        VALUES,
        "decimal comma",
        "read, said",
        table("x;v;y", lambda n: f"{n % 7};0,{n + 10};{n % 3 % 2}"),
        types={"v": "number"},
        values=(("v", 1, 0.11),),
        says=("numbers are read with ',' before decimals",),
    ),
    FileKind(
        VALUES,
        "thousands apart by comma, point, space or apostrophe",
        "read, said",
        _column(lambda n: f"{n + 1},234.5"),
        types={"v": "number"},
        values=(("v", 1, 2234.5),),
        says=("',' between thousands",),
    ),
    FileKind(
        VALUES,
        "1.234 in all rows, and no column that says what the point means",
        "read with the point before decimals, said; `--decimal ,` reads thousands",
        table("v;y", lambda n: f"{n % 9 + 1}.{n % 1000:03};{n % 3 % 2}"),
        types={"v": "number"},
        values=(("v", 1, 2.001),),
        says=("numbers such as", "`--decimal ','` reads them the other way"),
    ),
    FileKind(
        VALUES,
        "a sign of currency or percent",
        "the number without it",
        _column(lambda n: f"${_x(n)}"),
        types={"v": "number"},
        values=(("v", 1, 9.25),),
    ),
    FileKind(
        VALUES,
        "empty or blank",
        "missing: `missing: impute` is drafted",
        _column(lambda n: " " if n % 9 == 4 else _x(n)),
        types={"v": "number"},
        values=(("v", 4, None),),
    ),
    FileKind(
        VALUES,
        "NA, N/A, #N/A, <NA>, NaN, NaT, null, None, ?, -, \\N among numbers, times and in the target",
        "missing, said; `--missing not:WORD` makes it a value",
        _column(lambda n: WORDS[n // 5 % len(WORDS)] if n % 5 == 4 else _x(n)),
        types={"v": "number"},
        values=(("v", 4, None), ("v", 24, None), ("v", 54, None)),
        says=("'v': '#N/A', '-', '<NA>', '?', 'N/A' and 6 more are taken for a missing value",),
    ),
    FileKind(
        VALUES,
        "the same in categories",
        "values; `--missing WORD` makes it missing",
        _column(lambda n: "NA" if n % 9 == 4 else "ab"[n % 2]),
        types={"v": "category"},
        values=(("v", 4, "NA"),),
    ),
    FileKind(
        VALUES,
        "a word that `--missing` names",
        "missing everywhere",
        _column(lambda n: "gone" if n % 9 == 4 else "ab"[n % 2]),
        {"missing": ["gone"]},
        types={"v": "category"},
        values=(("v", 4, None), ("v", 1, "b")),
    ),
    FileKind(
        VALUES,
        "a number but for a few values",
        "numbers; the others are missing, said",
        _column(lambda n: "unknown" if n == 4 else _x(n)),
        types={"v": "number"},
        values=(("v", 4, None),),
        says=("'v' is a column of numbers but for 'unknown'",),
    ),
    FileKind(
        VALUES,
        "infinite",
        "missing, said",
        _column(lambda n: "inf" if n == 4 else _x(n)),
        types={"v": "number"},
        values=(("v", 4, None),),
        says=("but for 'inf'",),
    ),
    FileKind(
        VALUES,
        "digits with zeros in front",
        "text",
        _column(lambda n: f"{n % 5:03}"),
        types={"v": "category"},
        values=(("v", 1, "001"),),
    ),
    FileKind(
        VALUES,
        "whole numbers beyond 2^53",
        "text",
        _column(lambda n: str(2**60 + n % 5)),
        types={"v": "category"},
        values=(("v", 1, str(2**60 + 1)),),
    ),
    FileKind(
        VALUES,
        "a code, zip or id by name",
        "text",
        _column(lambda n: str(n % 5), "shop_code"),
        types={"shop_code": "category"},
        values=(("shop_code", 1, "1"),),
    ),
    FileKind(
        VALUES,
        "row numbers",
        "left out, said; `--feature` keeps them",
        _column(lambda n: str(n + 5)),
        types={"x": "number"},
        says=("'v' is left out: its values are the rows' numbers; `--feature v` keeps it",),
    ),
    FileKind(
        VALUES,
        "the same, kept by `--feature`",
        "numbers",
        _column(lambda n: str(n + 5)),
        {"keep": ["v"]},
        types={"v": "integer"},
    ),
    FileKind(
        VALUES,
        "texts of which hardly two are the same",
        "left out, said",
        _column(lambda n: f"name {n}"),
        types={"x": "number"},
        says=("'v' is left out: nearly every row has a value of its own",),
    ),
    FileKind(
        VALUES,
        "whole numbers of which hardly two are the same",
        "kept, said",
        _column(lambda n: str(n * n + 7)),
        types={"v": "integer"},
        says=("'v' is kept as a number, though nearly every row has one of its own",),
    ),
    FileKind(
        VALUES,
        "one value in every row, or none",
        "left out, said",
        _column(lambda n: "1"),
        types={"x": "number"},
        says=("'v' is left out: it has the same value in every row",),
    ),
    FileKind(
        VALUES,
        "times that are not the event time",
        "left out, said",
        _column(lambda n: f"2024-01-{_day(n):02}"),
        types={"x": "number"},
        says=("add `--time v`",),
    ),
    _instant("ISO 8601, with or without a zone", "read", lambda n: f"2024-01-{_day(n):02}T02:00:00+02:00"),
    _instant("day, month, year by points", "read", lambda n: f"{_day(n):02}.01.2024 00:00"),
    _instant(
        "day before month, or month before day",
        "settled by the whole column",
        lambda n: f"1/{_day(n)}/2024",
        says=(
            "'t' is read as %m/%d/%Y: the first instant is 2024-01-01T00:00:00Z, the last 2024-01-28T00:00:00Z",
        ),
    ),
    FileKind(
        TIMES,
        "the same, where every value fits both",
        "exit 2 names `--time-format`",
        _times(lambda n: f"{n % 12 + 1}/{n % 7 + 1}/2024"),
        _TIME,
        refused="say --time-format '%d/%m/%Y' or --time-format '%m/%d/%Y'",
    ),
    FileKind(
        TIMES,
        "the same, with `--time-format`",
        "read as told",
        _times(lambda n: f"{n % 12 + 1}/{n % 7 + 1}/2024"),
        {**_TIME, "time_format": "%m/%d/%Y"},
        values=(("t", 0, MIDNIGHT),),
    ),
    _instant("names of months, twelve hours", "read", lambda n: f"Jan {_day(n)}, 2024 12:00 AM"),
    _instant("yyyymmdd", "dates", lambda n: f"202401{_day(n):02}", says=("'t' is read as %Y%m%d",)),
    _instant("years", "dates", lambda n: str(2024 + n), says=("'t' is read as %Y:",)),
    *(
        _instant(
            f"epoch {unit}",
            "read, by plausibility",
            lambda n, zeros=zeros: f"{1_704_067_200 + 60 * n}{zeros}",
            says=(f"epoch-{unit}",),
        )
        for unit, zeros in (
            ("seconds", ""),
            ("milliseconds", "000"),
            ("microseconds", "0" * 6),
            ("nanoseconds", "0" * 9),
        )
    ),
    FileKind(
        TIMES,
        "small numbers",
        "exit 2 names `--time-format`",
        _times(lambda n: str(n)),
        _TIME,
        refused="no format of times fits all of its values",
    ),
    FileKind(
        TIMES,
        "before 1900 or after 2199",
        "refused with the value",
        _times(lambda n: f"1895-01-{_day(n):02}"),
        _TIME,
        refused="'1895-01-01' would lie before 1900 or after 2199",
    ),
    _instant(
        "rows without a time",
        "left out, said",
        lambda n: "NA" if n == 4 else f"2024-01-{_day(n):02}",
        says=("1 rows have no time in 't' ('NA'): train and replay leave them out",),
    ),
    FileKind(
        TIMES,
        "no column of times",
        "rows an even time apart, two weeks or more in all; `--every` says otherwise",
        _plain(),
        says=("rows are taken to be 6h apart and to end now",),
        types=X_AND_K,
    ),
    FileKind(TARGETS, "0 and 1, true and false", "binary", _targets(lambda n: str(n % 2)), task="binary"),
    FileKind(
        TARGETS,
        "yes and no",
        "binary, said",
        _targets(lambda n: "yes" if n % 2 else "no"),
        task="binary",
        says=("the probability of 'yes'",),
        values=(("y", 1, True),),
    ),
    FileKind(
        TARGETS,
        "two whole numbers, such as 1 and 2, or -1 and 1",
        "binary, said with the way to have a regression",
        _targets(lambda n: str(n % 2 + 1)),
        task="binary",
        values=(("y", 1, True),),
        says=("'y' has two whole numbers, 1 and 2, which are taken for classes",),
    ),
    FileKind(
        TARGETS,
        "the same with `--task regression`",
        "regression",
        _targets(lambda n: str(n % 2 + 1)),
        {"task": "regression"},
        task="regression",
        values=(("y", 1, 2.0),),
    ),
    FileKind(
        TARGETS,
        "three to ten whole numbers",
        "multiclass, said with the way to have a regression",
        _targets(lambda n: str(n % 3)),
        task="multiclass",
        values=(("y", 2, "2"),),
        says=("the task is multiclass",),
    ),
    FileKind(
        TARGETS,
        "more whole numbers, or decimals",
        "regression, said",
        _targets(lambda n: str(n % 20)),
        task="regression",
        says=("the task is a regression; `--task multiclass` takes them for classes",),
    ),
    FileKind(
        TARGETS,
        "two texts",
        "multiclass; `--positive` makes it binary, quoted for the shell",
        _targets(lambda n: ">50K" if n % 2 else "<=50K"),
        task="multiclass",
        says=("`--positive '>50K'`",),
    ),
    FileKind(
        TARGETS, "texts of up to 50 kinds", "multiclass", _targets(lambda n: "abc"[n % 3]), task="multiclass"
    ),
    FileKind(
        TARGETS,
        "a missing target",
        "no label, and no class of its own",
        _targets(lambda n: "?" if n == 4 else "abc"[n % 3]),
        task="multiclass",
        values=(("y", 4, None),),
        says=("1 rows have no 'y'",),
    ),
    FileKind(
        TARGETS,
        "a class that is rare",
        "said, with --until and --where",
        _targets(lambda n: "b" if n == 4 else "ac"[n % 2], 200),
        task="multiclass",
        says=("b (1): the earliest 20% that train takes may lack them",),
    ),
)

_BEGINNING = """\
# Files

What `tailrace init`, `train`, `replay` and `publish` make of files that nobody here made. Each line is a test
(`tests/unit/files/test_file_kinds.py`), and this page is made of their table (`tests/support/file_kinds.py`).

`init` looks at the whole file, says what it found, took for granted and left out, and writes that to
`contracts/data/MODEL.yaml` beside the contract ([contract.md](contract.md) has its fields): `train`, `replay` and
`publish` read by it. What init writes, they take of the same file without a dead letter that init has not announced.

A request id names the content of the file and the row's number in it, from 0: `credit-3f2a91c07b-0000123`. The same
file has the same ids in training and in every replay, and two files never share one. A replay says how many of its
rows were replayed before.
"""
_END = """
## Models

[models.md](models.md) says what is published of which library, and what is checked.
"""


def page() -> str:
    """docs/files.md."""
    lines = [_BEGINNING]
    for group in (FILES, VALUES, TIMES, TARGETS):
        lines += [f"## {group}", "", "| kind | what happens |", "| --- | --- |"]
        rows = [kind for kind in FILE_KINDS if kind.group == group]
        lines += [f"| {_cell(kind.name)} | {_cell(kind.outcome)} |" for kind in rows]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n" + _END


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    print(page(), end="")
