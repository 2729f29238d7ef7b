"""What was logged, held against itself: ``tailrace verify``, ``reproduce``."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, parsed, progress, say

if TYPE_CHECKING:
    from tailrace.verify.logged import Span

SinceOption = Annotated[str | None, typer.Option(help="Only what was logged then or later (ISO 8601).")]
UntilOption = Annotated[str | None, typer.Option(help="Only what was logged before then (ISO 8601).")]


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
    shown = report.as_dict()
    if as_json:
        emit(shown, as_json=True)
    else:
        emit([{"topic": name, **counts} for name, counts in shown["topics"].items()])
        for problem in report.problems:
            emit(str(problem))
        if hidden := shown["problem_count"] - len(report.problems):
            say(f"and {hidden:,} more")
        if report.rescored is not None:
            say(f"{report.rescored:,} predictions scored again")
        _say_revoked(shown["revoked"])
        say("ok: nothing lost, nothing twice, everything stored" if report.ok else "NOT ok")
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def reproduce(
    model: Annotated[str, typer.Argument(help="Logical model.")],
    name: Annotated[
        str | None, typer.Option("--id", help="Only the prediction, or the request, with this id.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score logged predictions again from their packages.

    Each comes to the same bits, all of its event but the time it took, where CPU and libraries are those that
    computed it, whatever batch it was in. What was computed elsewhere must be within its package's tolerance, and is
    counted apart (near). Requests that are no longer retained are taken from the predictions. Exits 1 where any
    differs, and prints both values.

    Example: tailrace reproduce credit --since 2026-07-01T00:00:00Z
    """
    from tailrace.verify.reproduce import reproduce as run

    span = span_of(since, until)
    with progress("reproduce", unit="predictions") as bar:
        report = run(connection(), model, span, limit, name, progress=bar.update)
    shown = report.as_dict()
    if as_json:
        emit(shown, as_json=True)
    else:
        emit([{**group, "elsewhere": len(group["elsewhere"]) or "-"} for group in shown["groups"]])
        for rescored in shown["differing"]:
            why = rescored["why"] or "; ".join(rescored["fields"])
            emit(f"{rescored['prediction']} ({rescored['request_id']}): {why}")
        total = report.total
        _say_revoked(shown["revoked"])
        say(f"{total.predictions:,} scored again: {total.equal:,} to the bit, {total.near:,} near")
        say("ok: nothing differs" if report.ok else f"NOT ok: {total.different + total.unanswered:,} differ")
    if not report.ok:
        raise typer.Exit(1)


def _say_revoked(keys: Collection[str]) -> None:
    if keys:
        say(f"signed by keys that were trusted then and are revoked now: {', '.join(keys)}")


def span_of(since: str | None, until: str | None) -> Span:
    from tailrace.contracts.instants import read_time
    from tailrace.verify.logged import Span

    return Span(parsed("--since", since, read_time), parsed("--until", until, read_time))
