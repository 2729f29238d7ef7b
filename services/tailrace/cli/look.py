"""Looking into what happened: ``tailrace query``, ``dlq``."""

from __future__ import annotations

import sys
from collections import Counter
from enum import StrEnum
from typing import Annotated

import typer

from tailrace.access.credentials import OPS
from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, say
from tailrace.errors import UsageError

dlq = typer.Typer(help="Dead letters: records that were refused, and why.", no_args_is_help=True)
app.add_typer(dlq, name="dlq")

ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="Only this model's lane.")]
CodeOption = Annotated[str | None, typer.Option(help="Only these: unseen-category, out-of-range, ...")]


class AnswerFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    VERTICAL = "vertical"


_OF_CLICKHOUSE = {AnswerFormat.CSV: "CSVWithNames", AnswerFormat.VERTICAL: "Vertical"}
"""Formats that ClickHouse writes itself, as the answer comes."""


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A SELECT, in ClickHouse's SQL.")],
    answer_format: Annotated[
        AnswerFormat | None, typer.Option("--format", "-f", help="What to print; a table by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask ClickHouse, read-only.

    Example: tailrace query "SELECT action, count() FROM credit_predictions GROUP BY action"

    Example: tailrace query --format csv "SELECT * FROM credit_performance" > performance.csv
    """
    from tailrace.clickhouse.client import ClickHouse

    if as_json and answer_format not in (None, AnswerFormat.JSON):
        raise UsageError(f"--json and --format {answer_format} are two formats: leave one of them out")
    clickhouse = ClickHouse.connect(connection(OPS))  # who only reads
    if answer_format in _OF_CLICKHOUSE:
        for piece in clickhouse.text(sql, _OF_CLICKHOUSE[answer_format]):
            sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return
    emit(clickhouse.select(sql), as_json or answer_format is AnswerFormat.JSON)


@dlq.command("list")
def dlq_list(
    model: ModelOption = None,
    code: CodeOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the last.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the last dead letters, oldest first, with their coordinates.

    Example: tailrace dlq list --model credit --code unseen-category
    """
    from tailrace.cli.dead_letters import find
    from tailrace.cli.records import iso

    stored = sorted(find(connection(), model, code), key=lambda s: (s.time_ms, s.at))
    rows = [
        {
            "dead_letter": str(at),
            "time": iso(time_ms),
            "code": letter.code,
            "field": letter.field,
            "source": str(letter.source),
            "reason": letter.reason,
        }
        for at, time_ms, letter, _ in stored[-limit:]
    ]
    emit(rows, as_json)
    if len(stored) > limit:
        counts = Counter(s.letter.code for s in stored)
        say(f"{len(stored):,} in all: {', '.join(f'{n:,} {c}' for c, n in counts.most_common())}")


@dlq.command("show")
def dlq_show(
    dead_letter: Annotated[str, typer.Argument(help="Its coordinates: topic/partition/offset.")],
    as_json: JsonOption = False,
) -> None:
    """Print one dead letter: what was wrong, where it came from, and the original record.

    Example: tailrace dlq show credit.dead-letters/0/17
    """
    from tailrace.avro.codec import Codec
    from tailrace.avro.registry import RegistryClient
    from tailrace.cli.dead_letters import coordinates, one
    from tailrace.cli.records import shown

    at = connection()
    stored = one(at, coordinates(dead_letter))
    record = shown(stored.message, Codec(RegistryClient(at.registry, at.registry_auth)))
    detail = record.pop("dead_letter")
    emit({**record, **detail, "headers": dict(stored.letter.headers)}, as_json)


@dlq.command("resend")
def dlq_resend(
    dead_letters: Annotated[
        list[str] | None, typer.Argument(help="Coordinates; or choose by --model.")
    ] = None,
    model: ModelOption = None,
    code: CodeOption = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were sent again before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send original records again to the topics they came from, each dead letter once.

    Of use when the cause is gone: the contract knows the category now. Exits 1 where some were not sent.

    Example: tailrace dlq resend --model credit --code unseen-category
    """
    from tailrace.cli.dead_letters import coordinates, find, one, resend

    if bool(dead_letters) == bool(model or code):
        raise UsageError("say which: either coordinates, or --model and --code")
    at = connection()
    if dead_letters:
        chosen = [one(at, coordinates(text)) for text in dict.fromkeys(dead_letters)]
    else:
        chosen = list(find(at, model, code))
    refusals = resend(at, chosen, again)
    emit(
        [{"dead_letter": str(at), "sent": why is None, "why_not": why} for at, why in refusals.items()],
        as_json,
    )
    sent = sum(why is None for why in refusals.values())
    say(f"{sent:,} of {len(refusals):,} sent again")
    if sent < len(refusals):
        raise typer.Exit(1)
