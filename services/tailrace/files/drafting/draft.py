"""``tailrace init``: the minimal contract of a data file, and the mapping that says how its rows are read."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from tailrace.contracts.language.durations import format_duration
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.names import MODEL_PATTERN
from tailrace.contracts.problems import did_you_mean
from tailrace.errors import TailraceError, UsageError
from tailrace.files.data_mapping import DataMapping, mapping_path, save_mapping
from tailrace.files.drafting.features import declaration, feature, say_bounds
from tailrace.files.drafting.names import field_name, why_renamed
from tailrace.files.drafting.target import DraftedTarget, Task, draft_target
from tailrace.files.drafting.times import spacing, time_format
from tailrace.files.missing import missing_words
from tailrace.files.numbers import Decimal, NumberFormat
from tailrace.files.table import Table, read_table


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


@dataclass(frozen=True)
class DraftOptions:
    """What init is told.

    Attributes:
        time: column of the event time. Without one, rows are ``every_ms`` apart and end at ``now_ms``.
        time_format: how it is written.
        key: column of the key.
        positive: the value of the target column that is to be predicted; makes it a yes-or-no question.
        task: what kind of target it is.
        context: columns that are logged and not given to the model.
        keep: columns that are features, whatever speaks against it.
        missing: words for missing, and ``not:WORD`` for what is a value.
        every_ms: time between two rows of a file without times.
        encoding: of a CSV file.
        decimal: what stands before the decimals in it.
    """

    time: str | None = None
    time_format: str | None = None
    key: str | None = None
    positive: str | None = None
    task: Task | None = None
    context: Collection[str] = ()
    keep: Collection[str] = ()
    missing: Collection[str] = ()
    every_ms: int | None = None
    encoding: str | None = None
    decimal: Decimal | None = None


def draft(path: Path, model: str, target: str, options: DraftOptions, *, team: str, now_ms: int) -> Drafted:
    """Looks at a whole file and writes the contract that its columns suggest.

    Args:
        path: the file, CSV or Parquet.
        model: the model's name.
        target: a column, or a SQL expression over columns, such as ``quality >= 7``; the columns in it are no features.
        options: what is told.
        team: the owner.
        now_ms: the time at which a file without times ends.

    Raises:
        UsageError: an option names what the file does not have, or makes no sense.
        TailraceError: the file cannot be read or has no rows.
    """
    if not re.fullmatch(MODEL_PATTERN, model):
        raise UsageError(
            f"--name {model!r}: write it in small letters, digits and hyphens, such as credit-risk"
        )
    if options.time is not None and options.every_ms is not None:
        raise UsageError("--every is for files without times: leave it out, or --time")
    if options.time is None and options.time_format is not None:
        raise UsageError("--time-format says how a column of times is written: name it with --time")
    missing = missing_words(options.missing)
    table = read_table(path, missing=missing, encoding=options.encoding, decimal=options.decimal)
    _require_columns(table, options)
    return _Draft(table, model, options).made(target, team, now_ms)


def write(drafted: Drafted, project: Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Writes both files into the project; gives their paths.

    Raises:
        UsageError: one of them is there already.
    """
    model = drafted.contract.model
    contract_path = project / "contracts" / "models" / f"{model}.yaml"
    for path in (contract_path, mapping_path(project, model)):
        if path.exists() and not overwrite:
            raise UsageError(f"{path} is there already: choose another --name, or write over it with --force")
    contract_path.parent.mkdir(parents=True, exist_ok=True)
    contract_path.write_text(drafted.contract_text, encoding="utf-8")
    save_mapping(drafted.mapping, mapping_path(project, model))
    return contract_path, mapping_path(project, model)


def _require_columns(table: Table, options: DraftOptions) -> None:
    named = [
        ("--time", options.time),
        ("--key", options.key),
        *(("--context", name) for name in options.context),
        *(("--feature", name) for name in options.keep),
    ]
    for option, column in named:
        if column is not None and column not in table.frame.columns:
            hint = did_you_mean(column, table.frame.columns)
            raise UsageError(f"{option} {column!r}: {table.path} has no such column; {hint}")


@dataclass
class _Draft:
    """One draft as it grows."""

    table: Table
    model: str
    options: DraftOptions
    notes: list[str] = field(default_factory=list)
    features: dict[str, dict[str, Any]] = field(default_factory=dict)
    context: dict[str, dict[str, Any]] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)

    def made(self, target: str, team: str, now_ms: int) -> Drafted:
        options, table = self.options, self.table
        self.notes += table.notes
        self._say_numbers()
        drafted = draft_target(table, target, options.positive, options.task, self.notes.append)
        self._draft_fields(drafted)
        if not self.features:
            raise TailraceError(
                f"{table.path}: no column is left to be a feature ({'; '.join(self.notes) or 'it has no other'})"
            )
        say_bounds(self.features | self.context, self.notes.append)
        names = {drafted.name, *self.features, *self.context}
        key_name = options.key if options.key in (None, "request_id") else field_name(str(options.key), names)
        time_name = field_name(options.time, names) if options.time else None
        text = self._contract_text(drafted, team, key_name, time_name)
        return Drafted(load_contract(text), text, self._mapping(drafted, now_ms), self.notes)

    def _draft_fields(self, target: DraftedTarget) -> None:
        options = self.options
        taken = {*target.used, *(column for column in (options.time, options.key) if column is not None)}
        for column in self.table.frame.columns:
            if column in taken:
                continue
            is_context = column in options.context
            if is_context:
                declared = declaration(self.table.column(column)) or {"type": "string"}
            else:
                declared = feature(self.table, column, self.notes.append, column in options.keep) or {}
            if declared:
                self._add(column, declared, is_context, target.name)

    def _add(self, column: str, declared: dict[str, Any], is_context: bool, target: str) -> None:
        name = field_name(column, {*self.features, *self.context, target, "event_time"})
        if name != column:
            self.columns[name] = column
            self.notes.append(why_renamed(column, name))
        (self.context if is_context else self.features)[name] = declared

    def _contract_text(
        self, target: DraftedTarget, team: str, key_name: str | None, time_name: str | None
    ) -> str:
        contract: dict[str, Any] = {"model": self.model, "owner": _flow({"team": team})}
        if self.options.key is not None and key_name != "request_id":
            is_number = self.table.column(self.options.key).kind == "integer"
            contract["key"] = _flow({"name": key_name, "type": "integer" if is_number else "string"})
        if time_name is not None and time_name != "event_time":
            contract["event_time"] = _flow({"name": time_name})
        contract["features"] = {name: _flow(declared) for name, declared in self.features.items()}
        if self.context:
            contract["context"] = {name: _flow(declared) for name, declared in self.context.items()}
        contract["target"] = _flow({"name": target.name, **target.kind})
        contract["labels"] = _flow({"horizon": "30d"})
        file = " ".join(self.table.path.name.split())
        return (
            f"# Drafted from {file}: `tailrace contracts show {self.model} --resolved` prints all defaults.\n"
            + _dump(contract)
        )

    def _mapping(self, target: DraftedTarget, now_ms: int) -> DataMapping:
        options, table = self.options, self.table
        data: dict[str, Any] = {"model": self.model, "target": target.expression, "key": options.key}
        if options.time is None:
            even = spacing(table.frame.height, options.every_ms, now_ms, self.notes.append)
            data |= {"every": format_duration(even.every_ms), "start": even.start}
        else:
            form = time_format(table, options.time, options.time_format, self.notes.append)
            data |= {"time": options.time, "time_format": form}
        odd = {name: list(odd) for name in table.frame.columns if (odd := table.column(name).odd)}
        missing = table.missing.model_copy(update={"columns": odd})
        data |= {"columns": self.columns, "missing": missing.model_dump()}
        if table.format is not None:
            data["format"] = table.format.model_dump()
        return DataMapping.model_validate(data)

    def _say_numbers(self) -> None:
        form = self.table.format
        if form is not None and self.table.numbers != NumberFormat():
            groups = f", {form.thousands!r} between thousands" if form.thousands else ""
            self.notes.append(f"numbers are read with {form.decimal!r} before decimals{groups}")


def _flow(value: Any) -> Any:
    """The same in YAML's flow style: on one line."""
    styled: Any = CommentedSeq(value) if isinstance(value, Sequence) else CommentedMap(value)
    if isinstance(styled, CommentedMap):
        for name, inner in styled.items():
            if isinstance(inner, list):
                styled[name] = _flow(inner)
    styled.fa.set_flow_style()
    return styled


def _dump(data: dict[str, Any]) -> str:
    yaml = YAML(typ="rt")
    yaml.width = 110
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()
