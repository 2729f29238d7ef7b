"""Requests in and answers out: ``tailrace replay``, ``predict``, ``tail``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, parsed, progress, say, to_json
from tailrace.connection import home_dir
from tailrace.errors import TailraceError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from tailrace.connection import Connection
    from tailrace.contracts.language.model_contract import ModelContract
    from tailrace.replay.send import Sent

ModelOption = Annotated[str, typer.Option("--model", "-m", help="Logical model.")]

_SUMMARY = (
    *("action", "rule", "score", "probabilities", "predicted_class", "value", "served_by", "served_cause"),
    *("model", "version", "request_id", "prediction_id", "replaced", "guardrails"),
)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet file.", exists=True, dir_okay=False)],
    model: ModelOption,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Records a second.")] = None,
    speed: Annotated[
        float | None,
        typer.Option(min=0.001, help="Seconds of event time a second: 3600 is an hour a second."),
    ] = None,
    label_delay: Annotated[
        str | None,
        typer.Option(help="Send each row's label so long after its request, in event time: 0s, 12h, 7d."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many rows in time.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition over the file's columns.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a file's rows as requests, in order of event time.

    As fast as Kafka takes them, unless --rate or --speed sets the pace. Meanwhile the file owns the lane's
    clock: partitions without traffic are told the event time, and all of them the last one. Rows that the
    champion was trained on are counted apart: its answers to them prove little. Rows that were replayed before are said
    before anything is sent; Ctrl-C says where it stopped.

    Example: tailrace replay electricity.csv --model electricity --label-delay 1d
    """
    from tailrace.contracts.language.durations import parse_duration
    from tailrace.contracts.state.fold_topics import contract_in_force
    from tailrace.files.data_mapping import find_mapping
    from tailrace.files.rows import read_rows
    from tailrace.replay.schedule import NOTHING
    from tailrace.replay.send import Replay, labels_after
    from tailrace.replay.trained import champion_manifest, count_trained

    if rate is not None and speed is not None:
        raise UsageError("--rate and --speed both set the pace: give one of them")
    delay = parsed("--label-delay", label_delay, parse_duration)
    addresses = connection()
    contract = contract_in_force(addresses, model)
    mapping = find_mapping(Path.cwd(), model)
    rows = read_rows(file, mapping, contract, where=where, limit=limit, say=say)
    if rows.is_empty():
        raise UsageError(f"{file}: no row is left to send; check --where and --limit")
    now_ms = int(time.time() * 1000)
    _say_ahead(file, rows[contract.event_time.name], now_ms + contract.event_time.skew_ms)
    champion = champion_manifest(addresses, home_dir(), model)
    if champion is None:
        say(
            f"{model} has no version in service: its requests wait until `tailrace train` or `publish` makes one"
        )
    trained = count_trained(champion.lineage.trained_on if champion else None, file, mapping, contract, rows)
    replayed = _say_overlap(addresses, contract, file, rows)
    labels, not_due = NOTHING, 0
    if delay is not None:
        labels, not_due = labels_after(rows, contract, delay, until_ms=now_ms)
        _say_not_due(rows, contract, delay, not_due, len(labels.row), now_ms)
    run = Replay(addresses, contract, rows, labels, rate=rate, speed=speed)
    with progress("replay", len(run.plan), unit="records") as bar:
        sent = run.run(bar.update)
    times = rows[contract.event_time.name]
    report = {
        "model": model,
        "requests": sent.requests,
        "labels": sent.labels,
        "labels_not_due": not_due,
        "trained_on": trained,
        "replayed_before": replayed,
        "first_event_time": int(times[0]),
        "last_event_time": sent.last_ms if sent.is_interrupted else int(times[-1]),
        "interrupted": sent.is_interrupted,
        "seconds": round(sent.seconds, 3),
    }
    emit(report, as_json)
    if sent.is_interrupted:
        _say_stopped(sent, len(rows), len(labels.row))
        raise typer.Exit(130)
    if delay is None:
        say(
            "no labels were sent: `--label-delay 1d` sends each a day after its request, so that answers can be judged"
        )
    say(f"`tailrace verify --model {model}` settles the account once all is answered")


def _say_ahead(file: Path, times: pl.Series, latest_ms: int) -> None:
    """Which rows will be refused, since they are later than now.

    Raises:
        TailraceError: all of them.
    """
    from tailrace.files.instants import format_time

    ahead = times.filter(times > latest_ms)
    if ahead.is_empty():
        return
    what = f"{len(ahead):,} of {len(times):,} rows are later than now, the first {format_time(int(ahead[0]))}"
    remedy = "leave them out with --where, or say with `tailrace init --time-format` how times are written"
    if len(ahead) == len(times):
        raise TailraceError(f"{file}: {what}, and none would be answered: {remedy}")
    say(f"{what}: each becomes a dead letter, event-time-ahead; {remedy}")


def _say_overlap(where_is: Connection, contract: ModelContract, file: Path, rows: pl.DataFrame) -> int:
    """How many of the rows are requests already, which is said before they are sent again."""
    from tailrace.contracts.records.lanes import Lane
    from tailrace.files.contents import content_digest
    from tailrace.files.rows import request_id_prefix
    from tailrace.replay.overlap import count_replayed

    if (
        contract.key.name == "request_id"
        and not rows["request_id"].str.starts_with(f"{contract.model}-").all()
    ):
        return 0  # ids of the file's own
    prefix = request_id_prefix(contract.model, content_digest(file))
    with progress("looking for rows that were replayed before", unit="requests") as bar:
        replayed = count_replayed(where_is, Lane(contract.lane).requests, prefix, rows, bar.update)
    if replayed:
        say(
            f"{replayed:,} of these {len(rows):,} rows were replayed before and have the same request ids: they are "
            "answered again, and a label counts for the request that came first; --where leaves them out"
        )
    return replayed


def _say_not_due(
    rows: pl.DataFrame, contract: ModelContract, delay_ms: int, not_due: int, due: int, now_ms: int
) -> None:
    """Labels that are not known yet, and what would have them known."""
    from tailrace.contracts.language.durations import format_duration
    from tailrace.replay.schedule import shorter_delay

    if not not_due:
        return
    say(f"{not_due:,} labels are not sent, and {due:,} are: by their event time they are not known yet")
    if due < not_due:
        remedy = "a file without times can be given more time: `tailrace init --every`"
        times = rows[contract.event_time.name]
        if shorter := shorter_delay(int(times[0]), now_ms, delay_ms):
            remedy = f"`--label-delay {format_duration(shorter)}` has most of them sent; {remedy}"
        say(f"the rows last less than the delay: {remedy}")


def _say_stopped(sent: Sent, requests: int, labels: int) -> None:
    """Where a replay was stopped, and what may be done."""
    from tailrace.files.instants import format_time

    at = f", at the event time {format_time(sent.last_ms)}" if sent.last_ms is not None else ""
    say(
        f"stopped after {sent.requests:,} of {requests:,} requests and {sent.labels:,} of {labels:,} labels{at}: "
        "the same command sends all of them again under the same ids, and --where those that are left"
    )


@app.command()
def clock(
    model: Annotated[str, typer.Argument(help="Logical model.")],
    owner: Annotated[
        str | None,
        typer.Argument(help="wall: from now on, wall time. Without it, it is only said who it is."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say who tells a model's lane the time, or end a replay's time.

    After a replay the lane's time stays that of the file, and a request has to say its own. With wall, requests are
    those of now, and silent partitions are told the wall's time. There is no way back: what is replayed later is late.

    Example: tailrace clock electricity wall
    """
    from tailrace.contracts.state.fold_topics import contract_in_force
    from tailrace.contracts.state.lane_clocks import WALL
    from tailrace.replay.claim import claimed_lane, clocks, set_clock

    if owner not in (None, WALL):
        raise UsageError(f"{owner!r} cannot be given the clock: `wall`, or a replay takes it by itself")
    addresses = connection()
    lane = contract_in_force(addresses, model).lane
    if owner is None:
        state = clocks(addresses).current.get(lane)
    else:
        with claimed_lane(addresses, lane):
            state = set_clock(addresses, lane, WALL, int(time.time() * 1000))
    emit({"lane": lane, **(state._asdict() if state else {"owner": None, "by": None, "at": None})}, as_json)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Logical model.")],
    row: Annotated[str, typer.Argument(help="Features and context as a JSON object.")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Send one request and print what became of it; exit 1 where it was rejected.

    The row may also carry request_id, the contract's key and its event time by their names.

    Example: tailrace predict credit '{"income": 41000, "debt_ratio": 0.3, "age": 44, "purpose": "car"}'
    """
    from tailrace.client import Client

    try:
        given = json.loads(row)
    except ValueError as error:
        raise UsageError(f"the row is not JSON ({error}): write it like '{{\"income\": 41000}}'") from None
    if not isinstance(given, dict):
        raise UsageError("the row is to be a JSON object, like '{\"income\": 41000}'")
    with Client(connection()) as client:
        event = client.predict(model, given, timeout)
    emit(event if as_json else _summary(event), as_json)


def _summary(event: dict[str, Any]) -> dict[str, Any]:
    """What a person asks for first; ``--json`` has the rest."""
    shown = {name: event[name] for name in _SUMMARY if event[name] not in (None, [], {})}
    return shown | {"source": "/".join(str(part) for part in event["source"].values())}


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="Topic, such as credit.predictions.")],
    limit: Annotated[int, typer.Option(min=0, help="How many of the last records.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    marks: Annotated[
        bool, typer.Option("--marks", help="Also watermark records, which pass time on.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a topic's last records, decoded: partition/offset, time, key, value.

    Example: tailrace tail credit.dead-letters --follow
    """
    from tailrace.cli.records import last_records, line

    for shown in last_records(connection(), topic, limit, follow, marks):
        print(to_json(shown) if as_json else line(shown), flush=True)
