"""A data file as it is: columns, content digest, how it is written, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tailrace.errors import TailraceError
from tailrace.files.contents import content_digest, is_parquet, text_of
from tailrace.files.csv_reader import Dialect, read_texts
from tailrace.files.data_mapping import FileFormat
from tailrace.files.inference import InferredColumn, infer
from tailrace.files.missing import MissingWords, without_numbers_words
from tailrace.files.numbers import Decimal, FoundFormat, NumberFormat, find_number_format
from tailrace.files.parquet_reader import read_typed


@dataclass(frozen=True)
class Table:
    """A file that was read.

    Attributes:
        path: of the file.
        digest: SHA-256 (hex) of its bytes.
        frame: texts as they stand in a CSV file, typed columns of Parquet; null where empty.
        format: how the CSV file is written; None for Parquet.
        missing: words that stand for a missing value.
        notes: what was left out, for people.
    """

    path: Path
    digest: str
    frame: pl.DataFrame
    format: FileFormat | None
    missing: MissingWords
    notes: list[str]
    _inferred: dict[str, InferredColumn] = field(default_factory=dict, repr=False, compare=False)

    @property
    def numbers(self) -> NumberFormat:
        """How it writes numbers."""
        return NumberFormat(self.format.decimal, self.format.thousands) if self.format else NumberFormat()

    def column(self, name: str) -> InferredColumn:
        """A column and what it is."""
        if name not in self._inferred:
            self._inferred[name] = infer(self.frame[name], self.missing, self.numbers)
        return self._inferred[name]

    def typed(self) -> pl.DataFrame:
        """All columns as what they are: what expressions over the file see."""
        return pl.DataFrame([self.column(name).values for name in self.frame.columns])

    def truths(self) -> pl.DataFrame:
        """The same as expressions of the target see them: words for missing are missing in texts, too."""
        columns = []
        for column in self.typed():
            is_text = column.dtype == pl.String
            words = self.missing.in_numbers(column.name)
            columns.append(without_numbers_words(column, words) if is_text else column)
        return pl.DataFrame(columns)


def read_table(
    path: Path,
    known: FileFormat | None = None,
    missing: MissingWords | None = None,
    encoding: str | None = None,
    decimal: Decimal | None = None,
) -> Table:
    """Reads a file of CSV (gzip, too) or Parquet.

    Args:
        path: the file.
        known: how it is written, as it was found before; else it is found.
        missing: words that stand for a missing value; by default the usual ones.
        encoding: of a CSV file, where it was told.
        decimal: what stands before the decimals in it, where it was told.

    Raises:
        TailraceError: it cannot be read, or has no rows.
        UsageError: nobody knows the encoding.
    """
    missing, digest = missing or MissingWords(), content_digest(path)
    if is_parquet(path):
        frame, notes = read_typed(path)
        form = None
    else:
        frame, form, notes = _read_csv(path, known, missing, encoding, decimal)
    if frame.height == 0:
        raise TailraceError(f"{path}: has no rows")
    return Table(path, digest, frame, form, missing, notes)


def _read_csv(
    path: Path,
    known: FileFormat | None,
    missing: MissingWords,
    encoding: str | None,
    decimal: Decimal | None,
) -> tuple[pl.DataFrame, FileFormat, list[str]]:
    if encoding is None and known is not None and known.encoding != "utf-8":
        encoding = known.encoding
    dialect = Dialect(known.delimiter, known.quote, known.escape, known.skip) if known else None
    with text_of(path, encoding) as text:
        read = read_texts(text.path, path, dialect)
    notes = [text.note, *read.notes] if text.note else read.notes
    if known is not None:
        return read.frame, known, notes
    texts = [without_numbers_words(column, missing.in_numbers(column.name)) for column in read.frame]
    guessed = find_number_format(texts, read.dialect.delimiter, decimal)
    form = FileFormat(**read.dialect._asdict(), encoding=text.encoding, **guessed.form._asdict())
    return read.frame, form, [*notes, *_unsure(texts, guessed)]


def _unsure(texts: Sequence[pl.Series], guessed: FoundFormat) -> Iterator[str]:
    decimal, other = guessed.form.decimal, "," if guessed.form.decimal == "." else "."
    for column in texts:
        if column.name in guessed.unsure:
            example = column.filter(column.str.contains(r"\d[.,]\d")).first()
            yield (
                f"{column.name!r}: numbers such as {example!s} can be read in two ways, and are read with {decimal!r} "
                f"before decimals: `--decimal '{other}'` reads them the other way"
            )
