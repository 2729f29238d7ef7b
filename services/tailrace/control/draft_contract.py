"""``tailrace init``: the minimal contract of a CSV file, and the mapping that says how its rows are read."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from tailrace.contracts.expressions.compiler import ExpressionError, compile_expression, frame_columns
from tailrace.contracts.language.data_file import (
    DataMapping,
    mapping_path,
    parse_time,
    read_csv,
    save_mapping,
)
from tailrace.contracts.language.durations import format_duration
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.names import MODEL_PATTERN, RESERVED_FIELDS
from tailrace.contracts.problems import did_you_mean
from tailrace.errors import TailraceError, UsageError

MOST_CATEGORIES = 50
DEFAULT_EVERY_MS = 60_000
_COMPARED = {
    ">=": "at_least",
    "<=": "at_most",
    "<>": "is_not",
    "!=": "is_not",
    "=": "is",
    ">": "over",
    "<": "under",
}


@dataclass(frozen=True)
class Drafted:
    """A contract and a mapping, as they are to be written.

    Attributes:
        notes: what was decided that the user may want to know.
    """

    contract: ModelContract
    contract_text: str
    mapping: DataMapping
    notes: list[str]


def draft(
    csv: Path,
    model: str,
    target: str,
    *,
    team: str,
    time: str | None = None,
    key: str | None = None,
    positive: str | None = None,
    context: Collection[str] = (),
    every_ms: int | None = None,
    now_ms: int,
) -> Drafted:
    """Looks at a CSV file and writes the contract that its columns suggest.

    Types, categories and bounds come from the whole file. Numbers have a lower bound of 0 where none is
    negative; more than that nobody can know from one file. Text of more than 50 different values, and columns
    of only one value, are left out.

    Args:
        csv: the file.
        model: the model's name.
        target: a column, or a SQL expression over columns, such as ``quality >= 7``; the columns in it are no
            features.
        team: the owner.
        time: column of the event time. Without one, rows are ``every_ms`` apart and end at ``now_ms``.
        key: column of the key.
        positive: the value of the target column that is to be predicted; makes it a yes-or-no question.
        context: columns that are logged and not given to the model.
        every_ms: time between two rows of a file without times; a minute by default.

    Raises:
        UsageError: an option names what the file does not have, or makes no sense.
        TailraceError: the file cannot be read or has no rows.
    """
    if not re.fullmatch(MODEL_PATTERN, model):
        raise UsageError(
            f"--name {model!r}: write it in small letters, digits and hyphens, such as credit-risk"
        )
    frame = read_csv(csv)
    if frame.height == 0:
        raise TailraceError(f"{csv}: has no rows")
    if time is not None and every_ms is not None:
        raise UsageError("--every is for files without times: leave it out, or --time")
    for option, column in [("--time", time), ("--key", key), *(("--context", name) for name in context)]:
        if column is not None and column not in frame.columns:
            raise UsageError(
                f"{option} {column!r}: {csv} has no such column; {did_you_mean(column, frame.columns)}"
            )
    notes: list[str] = []
    if positive is None and target in frame.columns:
        positive = _yes(frame[target], notes)
    name, kind, expression, used = _target(frame, target, positive)
    taken = {*used, *(column for column in (time, key) if column is not None)}
    features: dict[str, dict[str, Any]] = {}
    contexts: dict[str, dict[str, Any]] = {}
    columns: dict[str, str] = {}
    for column in frame.columns:
        if column in taken:
            continue
        series = frame[column]
        is_context = column in context
        field = _field(series) or {"type": "string"} if is_context else _feature(series, notes)
        if field is None:
            continue
        safe = _field_name(column, {*features, *contexts, name, "event_time"})
        if safe != column:
            columns[safe] = column
            notes.append(f"{column!r} is called {safe!r}, which every system can spell")
        (contexts if is_context else features)[safe] = field
    if not features:
        raise TailraceError(f"{csv}: no column is left to be a feature")

    key_name = key if key in (None, "request_id") else _field_name(key, {name, *features, *contexts})
    time_name = _field_name(time, {name, *features, *contexts}) if time else None
    contract: dict[str, Any] = {"model": model, "owner": _flow({"team": team})}
    if key is not None and key_name != "request_id":
        contract["key"] = _flow(
            {"name": key_name, "type": "integer" if frame[key].dtype.is_integer() else "string"}
        )
    if time_name is not None and time_name != "event_time":
        contract["event_time"] = _flow({"name": time_name})
    contract["features"] = {column: _flow(field) for column, field in features.items()}
    if contexts:
        contract["context"] = {column: _flow(field) for column, field in contexts.items()}
    contract["target"] = _flow({"name": name, **kind})
    contract["labels"] = _flow({"horizon": "30d"})
    text = (
        f"# Drafted from {csv.name}: `tailrace contracts show {model} --resolved` prints all defaults.\n"
        + _dump(contract)
    )

    start = None
    if time is None:
        every_ms = every_ms or DEFAULT_EVERY_MS
        start = datetime.fromtimestamp((now_ms - frame.height * every_ms) // 1000, UTC).isoformat()
        notes.append(
            f"no column of times is named: rows are taken to be {format_duration(every_ms)} apart and to end now "
            "(--time, --every)"
        )
    every = None if every_ms is None else format_duration(every_ms)
    read = {"time": time, "every": every, "start": start, "key": key, "columns": columns}
    mapping = DataMapping.model_validate({"model": model, "target": expression, **read})
    return Drafted(load_contract(text), text, mapping, notes)


def write(drafted: Drafted, project: Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Writes both files into the project; gives their paths.

    Raises:
        UsageError: one of them is there already.
    """
    model = drafted.contract.model
    paths = project / "contracts" / "models" / f"{model}.yaml", mapping_path(project, model)
    for path in paths:
        if path.exists() and not overwrite:
            raise UsageError(f"{path} is there already: choose another --name, or write over it with --force")
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    paths[0].write_text(drafted.contract_text, encoding="utf-8")
    save_mapping(drafted.mapping, paths[1])
    return paths


def _yes(series: pl.Series, notes: list[str]) -> str | None:
    """The value of a text that says yes, where the other one says no."""
    values = sorted(series.drop_nulls().unique().to_list()) if series.dtype == pl.String else []
    if [value.lower() for value in values] in (["no", "yes"], ["n", "y"]):
        notes.append(f"{series.name!r} asks yes or no: what is predicted is the probability of {values[1]!r}")
        return str(values[1])
    if len(values) == 2:
        notes.append(
            f"{series.name!r} has two values: `--positive {values[1]}` has the probability of that one predicted"
        )
    return None


def _target(
    frame: pl.DataFrame, target: str, positive: str | None
) -> tuple[str, dict[str, Any], str, frozenset[str]]:
    """The target's name, its declaration, the expression for the mapping, and the columns that it uses up."""
    if target not in frame.columns:
        if positive is not None:
            raise UsageError("--positive is for a target that is a column: say it in the expression instead")
        try:
            compiled = compile_expression(target, frame_columns(frame))
        except ExpressionError as error:
            raise UsageError(f"--target {target!r} is neither a column nor an expression: {error}") from None
        kind: dict[str, Any] = {"type": compiled.kind}
        if compiled.kind == "text":
            kind = {"categories": _categories(compiled.evaluate(frame), target)}
        return _field_name(_words(target)), kind, target, compiled.names
    series = frame[target]
    name = _field_name(target)
    quoted = f'"{target}"' if not target.isidentifier() else target
    values = series.drop_nulls().unique()
    if positive is not None:
        known = {_plain(value) for value in values.to_list()}
        if positive not in known:
            raise UsageError(
                f"--positive {positive!r}: no row has it; {did_you_mean(positive, sorted(known)[:20])}"
            )
        literal = "'" + positive.replace("'", "''") + "'"
        value = positive if series.dtype.is_numeric() else literal
        quoted += f" = {positive.upper() if series.dtype == pl.Boolean else value}"
        kind = {"type": "boolean"}
    elif series.dtype == pl.Boolean:
        kind = {"type": "boolean"}
    elif series.dtype.is_numeric() and set(values.to_list()) <= {0, 1}:
        kind, quoted = {"type": "boolean"}, f"{quoted} = 1"
    elif series.dtype.is_numeric():
        kind = {"type": "number"}
    else:
        kind = {"categories": _categories(series, target)}
    return name, kind, quoted, frozenset([target])


def _categories(series: pl.Series, target: str) -> Any:
    values = sorted(series.drop_nulls().unique().to_list())
    if not 2 <= len(values) <= MOST_CATEGORIES:
        raise UsageError(
            f"--target {target!r} has {len(values)} different values, where 2 to {MOST_CATEGORIES} are needed"
        )
    return _flow(values)


def _feature(series: pl.Series, notes: list[str]) -> dict[str, Any] | None:
    if series.drop_nulls().n_unique() < 2:
        notes.append(f"{series.name!r} is left out: it has the same value in every row")
        return None
    field = _field(series)
    if field is None:
        why = f"more than {MOST_CATEGORIES} different texts are no categories"
        if _are_times(series):
            why = f"it holds times; if they say when each row happened, add `--time {series.name}`"
        notes.append(f"{series.name!r} is left out: {why}")
        return None
    if series.null_count():
        field["missing"] = "impute"
    return field


def _are_times(series: pl.Series) -> bool:
    """Whether the first of the texts all are times."""
    try:
        return all(parse_time(text) is not None for text in series.drop_nulls().head(100))
    except ValueError:
        return False


def _field(series: pl.Series) -> dict[str, Any] | None:
    if series.dtype == pl.Boolean:
        return {"type": "boolean"}
    if series.dtype.is_numeric():
        field: dict[str, Any] = {"type": "integer" if series.dtype.is_integer() else "number"}
        least = series.min()
        if isinstance(least, int | float) and math.isfinite(least) and least >= 0:
            field["min"] = 0
        return field
    values = series.drop_nulls().unique()
    if len(values) > MOST_CATEGORIES or values.str.len_chars().max() > 200:  # type: ignore[operator]
        return None
    return {"categories": _flow(sorted(values.to_list()))}


def _field_name(column: str, taken: Collection[str] = ()) -> str:
    """A name that Avro, ClickHouse and SQL can spell, as close to the column's as may be."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_") or "column"
    if not name[0].isalpha():
        name = f"x_{name}"
    name = name[:70]
    lowered = {other.lower() for other in taken}
    candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(c for c in candidates if c.lower() not in lowered and c not in RESERVED_FIELDS)


def _words(expression: str) -> str:
    """A name for what an expression says: ``quality >= 7`` is ``quality_at_least_7``."""
    for operator, word in _COMPARED.items():
        expression = expression.replace(operator, f" {word} ")
    return re.sub(r"-(?=[\d.])", "minus ", expression).lower()


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flow(value: Any) -> Any:
    """The same in YAML's flow style: on one line."""
    styled: Any = CommentedSeq(value) if isinstance(value, Sequence) else CommentedMap(value)
    styled.fa.set_flow_style()
    return styled


def _dump(data: dict[str, Any]) -> str:
    yaml = YAML(typ="rt")
    yaml.width = 110
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()
