"""``tailrace rebuild``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.access.credentials import OWNER
from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, progress, say

if TYPE_CHECKING:
    from tailrace.sink.rebuild import Rebuilt


@app.command()
def rebuild(
    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TABLE]...", help="Tables of ClickHouse; all that lack rows, where none is given."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fill tables of ClickHouse in from the topics, as far as they still hold the records.

    A table is made again where it is gone, parts that are damaged are set aside, and each record that has no row gets
    one. The sink may run meanwhile. Offsets that topics hold no longer are named. It may be run again at any time.

    Example: tailrace rebuild credit_predictions
    """
    from tailrace.clickhouse.client import ClickHouse
    from tailrace.clickhouse.history import lacking
    from tailrace.contracts.records.lanes import CONTRACTS
    from tailrace.contracts.state.records import ControlRecords
    from tailrace.services import SINK_GROUP
    from tailrace.sink.rebuild import Rebuild
    from tailrace.sink.rows import RowReader
    from tailrace.streaming.backends.kafka.group_offsets import progress_of, stored_by
    from tailrace.streaming.backends.kafka.reading import HistoryReader, everything_on
    from tailrace.streaming.time_source import SystemClock

    at = connection()
    clickhouse = ClickHouse.connect(at)
    rows = RowReader(ControlRecords.of(at, OWNER), clickhouse, stored=stored_by(at, SINK_GROUP))
    rows.control(everything_on(at, (CONTRACTS,)))
    work = Rebuild(
        clickhouse,
        rows,
        lambda: progress_of(at, SINK_GROUP),
        lambda stretches: HistoryReader(at, stretches),
        SystemClock(),
    )
    reports = []
    for table in tables or sorted(lacking(clickhouse, work.tables)):
        total = sum(offsets.committed - offsets.earliest for offsets in work.offsets(table).values())
        with progress(f"rebuild {table}", total, "offsets") as bar:
            reports.append(work.run(table, bar.update))
    if not reports:
        say("no table lacks rows")
    filled = [
        {"table": name, "rows filled in": count}
        for report in reports
        for name, count in sorted({report.table: 0, **report.filled}.items())
    ]
    emit([vars(report) for report in reports] if as_json else filled, as_json)
    for report in reports:
        _say(report)


def _say(report: Rebuilt) -> None:
    """What was not filled in, and why."""
    if report.damaged_parts:
        say(f"set aside as damaged: {', '.join(report.damaged_parts)} (in the table's folder `detached`)")
    for stretch in report.gone:
        say(
            f"{stretch['topic']}/{stretch['partition']} holds offsets {stretch['from']} to {stretch['to']} no longer: "
            f"{report.table} has {stretch['rows_kept']:,} rows of them"
        )
    for topic in report.compacted:
        say(f"{topic} keeps the newest record of each key: older ones are not filled in")
