"""``tailrace verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, progress, say


@app.command()
def verify(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only this model's lane.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that the sink may take to catch up.")] = 30.0,
    deep: Annotated[bool, typer.Option("--deep", help="Also score a sample of requests again.")] = False,
    sample: Annotated[int, typer.Option(min=1, help="How many, with --deep.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """Settle the accounts from the topics themselves.

    Every request has one answer, a prediction or a dead letter, or is in flight; every prediction names a
    published version and an applied contract; every outcome has its prediction, its label and its action in
    the log, as they are there, and follows the one that it replaces; there is one report of each id; rollout
    steps follow each other and no loser answers; each training run is planned once and ends once, with the
    version that it says; ClickHouse has a row for every event. With --deep, a sample scored again comes to
    the same events. Exits 1 and names the offending offsets where that is not so.

    Example: tailrace verify --model credit --json
    """
    from tailrace.verify.verify import Verification

    with progress("verify", unit="records") as bar:
        report = Verification(connection(), model, wait_s=wait, deep=sample if deep else 0).run(bar.update)
    found = report.as_dict()
    if as_json:
        emit(found, as_json=True)
    else:
        emit([{"topic": name, **counts} for name, counts in found["topics"].items()])
        for problem in report.problems:
            emit(str(problem))
        if hidden := found["problem_count"] - len(report.problems):
            say(f"and {hidden:,} more")
        if report.rescored is not None:
            say(f"{report.rescored:,} predictions scored again")
        if report.revoked:
            say(f"signed by keys that were trusted then and are revoked now: {', '.join(found['revoked'])}")
        say("ok: nothing lost, nothing twice, everything stored" if report.ok else "NOT ok")
    if not report.ok:
        raise typer.Exit(1)
