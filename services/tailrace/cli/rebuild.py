"""``tailrace rebuild``."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, progress, say
from tailrace.kit.credentials import OWNER


@app.command()
def rebuild(
    table: Annotated[str, typer.Argument(help="A table of ClickHouse that lacks rows.")],
    as_json: JsonOption = False,
) -> None:
    """Fill a table of ClickHouse in from the topics, as far as they still hold it.

    It is made again where it is gone, parts that are damaged are set aside, and each record that has no row gets
    one. The sink may run meanwhile. Offsets that topics hold no longer are named. It may be run again at any time.

    Example: tailrace rebuild credit_predictions
    """
    from tailrace.contracts.lanes import CONTRACTS
    from tailrace.contracts.state.records import ControlRecords
    from tailrace.kit.clickhouse import ClickHouse
    from tailrace.kit.clock import SystemClock
    from tailrace.kit.group_offsets import SINK_GROUP, progress_of, stored_by
    from tailrace.kit.reading import HistoryReader, everything_on
    from tailrace.sink.rebuild import Rebuild
    from tailrace.sink.rows import RowReader

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
    total = sum(each.committed - each.earliest for each in work.offsets(table).values())
    with progress(f"rebuild {table}", total, "offsets") as bar:
        done = work.run(table, bar.update)
    if as_json:
        emit(vars(done), as_json=True)
    else:
        emit(
            [{"table": name, "rows filled in": count} for name, count in sorted(done.filled.items())]
            or [{"table": table, "rows filled in": 0}]
        )
        if done.gone:
            print()
            emit(done.gone)
    if done.damaged_parts:
        say(f"set aside as damaged: {', '.join(done.damaged_parts)} (in the table's folder `detached`)")
    for stretch in done.gone:
        say(
            f"{stretch['topic']}/{stretch['partition']} holds offsets {stretch['from']} to {stretch['to']} no longer: "
            f"{table} has {stretch['rows_kept']:,} rows of them"
        )
    for topic in done.compacted:
        say(f"{topic} keeps the newest record of each key: older ones are not filled in")
