"""Times in any common format, found over a whole column or told: ms since 1970, UTC where no zone is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import polars as pl

from tailrace.contracts.instants import read_time
from tailrace.errors import TailraceError, UsageError

EARLIEST, LATEST = -2_208_988_800_000, 7_258_118_400_000
"""1900-01-01, and 2200-01-01, which is the first instant beyond."""
ISO = "iso"
EXCEL = "excel-days"
EPOCHS = {
    "epoch-seconds": 1_000,
    "epoch-milliseconds": 1,
    "epoch-microseconds": -1_000,
    "epoch-nanoseconds": -1_000_000,
}
"""Milliseconds that one unit has; negative: units that one millisecond has."""
_NEAREST_EPOCH = 10**8  # seconds: the spring of 1973; what is nearer to 1970 counts something else
_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BY_DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *(
        "%d.%m.%y",
        "%d/%m/%y",
        "%m/%d/%y",
        "%y/%m/%d",
        "%d-%m-%y",
        "%m-%d-%y",
        "%y-%m-%d",
        "%d %B %Y",
        "%d-%B-%Y",
    ),
    *(
        "%d-%B-%y",
        "%B %d, %Y",
        "%B %d %Y",
        "%d. %B %Y",
        "%a, %d %B %Y",
        "%Y-%B-%d",
        "%Y%m%d",
        "%Y-%m",
        "%m/%Y",
    ),
)
_TIMES = (
    "",
    " %H:%M",
    " %H:%M:%S",
    " %H:%M:%S.%f",
    "T%H:%M",
    "T%H:%M:%S",
    "T%H:%M:%S.%f",
    " %I:%M %p",
    " %I:%M:%S %p",
)
_ODD_ORDER = ("%a %B %d %H:%M:%S %Y", "%H:%M:%S %d/%m/%Y", "%H:%M %d.%m.%Y", "%d/%B/%Y:%H:%M:%S")
_LIKE_A_TIME = r"^.{0,10}\d.{0,3}\D.{0,30}\d.{0,10}$"
"""Digits on both sides of something else: what is not like that need not be tried."""
_ZONED = r":\d{2}(\.\d+)?\s?(Z|UTC|GMT|[+-]\d{2}:?\d{2})$"
_ZONE = r"\s?(Z|UTC|GMT|[+-]\d{2}:?\d{2})$"


def format_time(milliseconds: int) -> str:
    """ISO 8601 in UTC, without milliseconds where it has none."""
    return (_EPOCH + milliseconds * _MS).isoformat().replace("+00:00", "Z").replace("000Z", "Z")


def find_format(texts: pl.Series) -> str | None:
    """The format of all texts of a column, null ones passed over; None where it is of none that is known.

    Raises:
        UsageError: day and month, or other parts, can be read in two ways, whatever the column; names the choice.
    """
    values = texts.drop_nulls().unique(maintain_order=True)
    if values.is_empty():
        return None
    if values.str.contains(r"^[+-]?\d+(\.\d+)?$").all():
        return _digits(values)
    if not _read_iso(values).null_count():
        return ISO
    fitting = _fitting(values)
    kinds: dict[tuple[int, ...], str] = {}
    for form in fitting:
        kinds.setdefault(tuple(read_instants(values, form).to_list()), form)
    if len(kinds) > 1:
        choices = " or ".join(f"--time-format '{form}'" for form in kinds.values())
        raise UsageError(
            f"{texts.name!r} can be read in {len(kinds)} ways, as every value fits ({values[0]!r}): say {choices}"
        )
    return next(iter(kinds.values()), None)


def read_instants(texts: pl.Series, form: str) -> pl.Series:
    """The texts as milliseconds since 1970 (Int64); null where one is not of the format.

    Raises:
        UsageError: nobody knows the format.
    """
    if form == ISO:
        return _read_iso(texts)
    if form in EPOCHS:
        return _read_epoch(texts, EPOCHS[form])
    if form == EXCEL:
        days = texts.cast(pl.Float64, strict=False)
        return ((days - 25_569) * 86_400_000).round().cast(pl.Int64, strict=False)
    if "%" not in form:
        known = ", ".join((ISO, *EPOCHS, EXCEL))
        raise UsageError(
            f"time format {form!r} is not known: one of {known}, or a pattern such as %d.%m.%Y %H:%M"
        )
    return _read_pattern(texts, form)


def refuse_implausible(times: pl.Series, texts: pl.Series, what: str, rows: pl.Series | None = None) -> None:
    """Raises TailraceError where a time is before 1900 or after 2199, with its value.

    Args:
        rows: each one's row of the file, from 0, where they are not all of its rows.
    """
    wrong = ((times < EARLIEST) | (times >= LATEST)).fill_null(value=False)
    if wrong.any():
        at = wrong.arg_max() or 0
        row = at if rows is None else rows[at]
        raise TailraceError(
            f"{what}: row {row + 1}: {texts[at]!r} would lie before 1900 or after 2199 ({wrong.sum()} such rows): "
            "say how it is written with --time-format, or leave such rows out with --where"
        )


def _digits(values: pl.Series) -> str | None:
    lengths = values.str.len_chars().unique()
    if len(lengths) == 1 and (form := _BY_DIGITS.get(lengths[0])) is not None:
        times = read_instants(values, form)
        if not times.null_count() and times.is_between(EARLIEST, LATEST).all():
            return form
    sizes = values.cast(pl.Float64).abs()
    least, most = float(sizes.min()), float(sizes.max())  # type: ignore[arg-type]
    for scale, form in zip((1, 1e3, 1e6, 1e9), EPOCHS, strict=True):
        if least >= _NEAREST_EPOCH * scale and most < LATEST / 1000 * scale:
            return form
    return None


def _read_epoch(texts: pl.Series, scale: int) -> pl.Series:
    whole = texts.cast(pl.Int64, strict=False)
    parts = texts.cast(pl.Float64, strict=False)
    if scale < 0:
        return (whole.fill_null(parts.round().cast(pl.Int64, strict=False)) + -scale // 2) // -scale
    return (whole * scale).fill_null((parts * scale + 0.5).floor().cast(pl.Int64, strict=False))


def _read_iso(texts: pl.Series) -> pl.Series:
    known: dict[str, int | None] = {}
    for text in texts.drop_nulls().unique():
        try:
            known[text] = read_time(text)
        except (ValueError, OverflowError):
            known[text] = None
    return texts.replace_strict(known, default=None, return_dtype=pl.Int64)


def _read_pattern(texts: pl.Series, form: str) -> pl.Series:
    """By Python's patterns, which chrono's differ from in the fraction only; a zone at the end is ours."""
    zone = None
    if form.endswith("%z"):
        form = form.removesuffix("%z").rstrip()
        zone = _minutes(texts.str.extract(_ZONE))
        texts = texts.str.replace(_ZONE, "")
    if form == "%Y":
        form, texts = "%Y-%m", texts + "-01"
    if "%d" not in form:
        form, texts = form + " %d", texts + " 01"
    pattern = form.replace(".%f", "%.f")
    if "%H" not in form and "%I" not in form:
        pattern, texts = pattern + " %H:%M", texts + " 00:00"
    times = texts.str.strptime(pl.Datetime("us"), pattern, strict=False).dt.timestamp("us")
    times = (times + 500) // 1000  # to the nearest one, as everywhere
    return times if zone is None else times - zone * 60_000


def _minutes(zones: pl.Series) -> pl.Series:
    """Minutes east of Greenwich; null where a text has no zone."""
    sign = zones.str.starts_with("-").cast(pl.Int64) * -2 + 1
    digits = zones.str.replace_all(r"[^\d]", "")
    minutes = digits.str.slice(0, 2).cast(pl.Int64, strict=False) * 60 + digits.str.slice(2).cast(
        pl.Int64, strict=False
    )
    return (sign * minutes).set(zones.is_in(["Z", "UTC", "GMT"]).fill_null(value=False), 0)


def _fitting(values: pl.Series) -> list[str]:
    """The formats of which every value is, and no value lies out of all time."""
    if not values.head(100).str.contains(_LIKE_A_TIME).all():
        return []
    zoned = "%z" if values.str.contains(_ZONED).all() else ""
    has_year = values.str.contains(r"\d{4}").all()
    forms = [date + time for date, time in product(_DATES, _TIMES)] + list(_ODD_ORDER)
    forms = [form + zoned for form in forms if ("%Y" in form) == has_year]
    for part in (values.head(1), values.head(20), values):
        forms = [form for form in forms if not read_instants(part, form).null_count()]
    return [form for form in forms if read_instants(values, form).is_between(EARLIEST, LATEST).all()] or forms
