"""Checks requests against the contract, column by column: type, range, category, missing, rules across fields.

A row that breaks the contract is bad by itself, with a code, the field and a reason; the batch goes on.
Nothing that is NaN or infinite passes: NaN is a missing value, an infinity is never right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.categorical_column import UNKNOWN, CategoricalColumn
from tailrace.avro.columns.decoder import Column, Ints, Mask
from tailrace.contracts import instants
from tailrace.contracts.expressions.compiler import compile_expression
from tailrace.contracts.expressions.values import Arrays
from tailrace.contracts.language.expression_columns import request_columns
from tailrace.contracts.language.fields import ContextField, Feature
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import BadRecord
from tailrace.models.columns import Array, Coded
from tailrace.scorer.batch import Batch
from tailrace.scorer.rows import CheckedRows, Replaced, Requests, others
from tailrace.streaming.ids import REQUEST_ID
from tailrace.streaming.records import RecordRef
from tailrace.streaming.watermark_records import EARLIEST_MS

_MOST = float(np.finfo(np.float64).max)


def check(batch: Batch, requests: Requests) -> CheckedRows:
    """The requests that keep the contract; what is wrong with the others is noted in the batch."""
    plan = requests.plan
    times, appended = requests.event_times(batch.append_times)
    checked = plan.worked_out(InputCheck).run(requests.columns, times, appended)
    for row, bad in checked.bad.items():
        batch.bad[int(requests.at[row])] = bad
    at, columns = requests.at, requests.columns
    sources = batch.sources(at)
    ids = keys = _effective(columns[REQUEST_ID].values, *sources)
    if plan.contract.key.name != REQUEST_ID:
        keys = _effective(columns[plan.contract.key.name].keys(), *sources)
    replacements = checked.replaced, checked.impute
    rows = CheckedRows(plan, at, requests.values, ids, keys, times, checked.columns, *replacements)
    return rows.take(others(checked.bad, len(rows))) if checked.bad else rows


@dataclass
class Checked:
    """What the check came to, row by row: ``bad`` breaks the contract; the rest as in `CheckedRows`."""

    columns: dict[str, Coded] = field(default_factory=dict)
    bad: dict[int, BadRecord] = field(default_factory=dict)
    replaced: dict[int, list[Replaced]] = field(default_factory=dict)
    impute: dict[str, Mask] = field(default_factory=dict)

    def reject(self, row: int, code: str, reason: str, name: str | None) -> None:
        """The first thing that is wrong with a row is the one that counts."""
        self.bad.setdefault(row, BadRecord(code, reason, name))

    def reject_missing(self, row: int, name: str) -> None:
        self.reject(row, "missing", f"{name} is missing, and the contract does not say what then", name)


class InputCheck:
    """The checks of one contract."""

    def __init__(self, contract: ModelContract) -> None:
        self._skew_ms = contract.event_time.skew_ms
        self._event_time = contract.event_time.name
        self._early_1970 = contract.event_time.early_1970
        declared: dict[str, Feature | ContextField] = {**contract.context, **contract.features}
        texts = ("category", "string")
        self._fields = {n: (_Text if f.type in texts else _Number)(n, f) for n, f in declared.items()}
        known = request_columns(contract)
        self._rules = [
            (rule.name, rule.require, compile_expression(rule.require, known, "boolean"))
            for rule in contract.rules
        ]

    def run(self, columns: dict[str, Column], event_times: Ints, appended: Ints) -> Checked:
        """Checks some requests; ``appended`` are their append times, in ms like their event times."""
        checked = Checked()
        for row in np.flatnonzero(event_times < EARLIEST_MS).tolist():
            checked.reject(row, "out-of-range", "it is before the year 1", self._event_time)
        for row in np.flatnonzero(event_times > appended + self._skew_ms).tolist():
            reason = instants.ahead(int(event_times[row]), int(appended[row]), self._skew_ms)
            checked.reject(row, "event-time-ahead", reason, self._event_time)
        if not self._early_1970:
            self._reject_seconds(columns[self._event_time], checked)
        for name, check in self._fields.items():
            checked.columns[name] = check.run(columns[name], checked)
        known = Arrays(checked.columns, len(event_times))
        for name, text, rule in self._rules:
            # As with a CHECK in SQL, what is unknown because a value is missing does not break the rule.
            for row in np.flatnonzero(rule.truth(known).no).tolist():
                checked.reject(row, "rule", f"breaks the rule {name}: {text}", name)
        return checked

    def _reject_seconds(self, given: Column, checked: Checked) -> None:
        suspect = (given.values >= 0) & (given.values <= instants.SECONDS_UNTIL_MS)
        if given.present is not None:
            suspect &= given.present
        for row in np.flatnonzero(suspect).tolist():
            reason = instants.in_seconds(int(given.values[row]), self._event_time)
            checked.reject(row, "event-time-in-seconds", reason, self._event_time)


class _Number:
    """Numbers, integers and booleans."""

    def __init__(self, name: str, declared: Feature | ContextField) -> None:
        self._name = name
        self._missing = declared.missing
        self._low = -_MOST if declared.min is None else declared.min
        self._high = _MOST if declared.max is None else declared.max
        self._unit = f" {declared.unit}" if declared.unit else ""

    def run(self, column: Column, checked: Checked) -> Array:
        values: Array = column.values.astype(np.float64, copy=False)
        if column.present is not None and column.values.dtype != np.float64:
            values = np.where(column.present, values, np.nan)
        fine = (values >= self._low) & (values <= self._high)
        if not fine.all():
            self._examine(values, column.present, ~fine, checked)
        return values

    def _examine(self, values: Array, present: Mask | None, unfit: Mask, checked: Checked) -> None:
        missing = np.isnan(values)
        if missing.any():
            if self._missing == "impute":
                checked.impute[self._name] = missing
            elif self._missing == "reject":
                for row in np.flatnonzero(missing).tolist():
                    if present is None or present[row]:
                        checked.reject(row, "not-finite", f"{self._name} is NaN", self._name)
                    else:
                        checked.reject_missing(row, self._name)
        for row in np.flatnonzero(unfit & ~missing).tolist():
            value = float(values[row])
            if np.isinf(value):
                checked.reject(row, "not-finite", f"{self._name} is infinite", self._name)
            else:
                bound = f"below {self._low:g}" if value < self._low else f"above {self._high:g}"
                reason = f"{self._name} is {value!r}, {bound}{self._unit}"
                checked.reject(row, "out-of-range", reason, self._name)


class _Text:
    """Categories, and texts of any kind."""

    def __init__(self, name: str, declared: Feature | ContextField) -> None:
        self._name = name
        self._missing = declared.missing
        self._categories = declared.categories
        self._known = tuple(declared.categories or ())
        self._known_bytes = BytesColumn.of([category.encode() for category in self._known])
        self._unseen = declared.unseen or "reject"

    def run(self, column: Column, checked: Checked) -> CategoricalColumn:
        if self._categories is None:
            texts = CategoricalColumn.of([None if t is None else t.decode() for t in column.values])
        else:
            texts = CategoricalColumn(column.values.codes(self._known_bytes), self._known)
        wanting = np.flatnonzero(texts.codes < 0)
        if len(wanting):
            self._examine(texts.codes, wanting, column, checked)
        return texts

    def _examine(self, codes: Ints, wanting: Ints, column: Column, checked: Checked) -> None:
        missing = np.zeros(len(codes), dtype=np.bool_)
        for row in wanting.tolist():
            value_bytes = column.values[row]
            if value_bytes is None:
                missing[row] = True
                if self._missing == "reject":
                    checked.reject_missing(row, self._name)
            elif self._unseen == "reject":
                codes[row] = UNKNOWN
                known = ", ".join(self._known)
                reason = f"{self._name} is {value_bytes.decode()[:100]!r}, not one of {known}"
                checked.reject(row, "unseen-category", reason[:500], self._name)
            else:
                codes[row] = self._known.index(self._unseen)
                checked.replaced.setdefault(row, []).append(Replaced(self._name, self._unseen, "unseen"))
        if self._missing == "impute" and missing.any():
            checked.impute[self._name] = missing


def _effective(
    values: BytesColumn | Sequence[bytes | None], topic: str, partitions: Ints, offsets: Ints
) -> BytesColumn:
    """Ids or keys, with the request's record reference where there is none."""
    if isinstance(values, BytesColumn) and (values.ends > values.begins).all() and (values.begins >= 0).all():
        return values
    rows = zip(values, partitions.tolist(), offsets.tolist(), strict=True)
    return BytesColumn.of([value or str(RecordRef(topic, *place)).encode() for value, *place in rows])
