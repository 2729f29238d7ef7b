"""``tailrace demo``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, emit, say
from tailrace.errors import UsageError


@app.command()
def demo(
    data: Annotated[
        str | None, typer.Option(help="A real data set instead of the story: electricity, wine or phishing.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="With --data: its CSV file; default: its usual name in this folder.", dir_okay=False
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long loans stream; half a year passes in it.")] = 100,
    rate: Annotated[
        int | None, typer.Option(min=1, help="Loans, or a data set's records, a second.", show_default="200")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulated loans.")] = 1,
    folder: Annotated[Path, typer.Option(help="Project folder; made anew.")] = Path(".tailrace-demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Close the loop before your eyes: loans, a change of the world, drift, retraining, shadow, promotion.

    Example: tailrace demo --seed 7 --keep
    Example: tailrace demo --data phishing
    """
    if data is not None:
        _on_data(data, file, folder, rate, keep, as_json)
        return
    if file is not None:
        raise UsageError("--file is the CSV file of --data: say which set it is")
    from tailrace.demo.scenario import Story

    happened = Story(folder, seconds, rate or 200, seed, keep).run()
    report = dataclasses.asdict(happened)
    missing = report.pop("missing")
    if as_json:
        emit(report, as_json=True)
    else:
        counts, accuracy, drift = happened.counts, happened.accuracy, happened.drift
        emit(
            {
                "requests": f"{counts['requests']:,}",
                "answered": f"{counts['predictions']:,} ({counts['lost']} lost, {counts['twice']} twice)",
                "by version": ", ".join(f"{v}: {n:,}" for v, n in happened.versions.items()),
                "recovery after SIGKILL": f"{happened.recovery_seconds} s",
                "the world changed": _day(drift["true_at"]),
                "drift alert": f"{_day(drift['detected_at'])}; {drift['false_alerts']} false ones",
                "accuracy before": _share(accuracy["before"]),
                "after the change": _share(accuracy["fallen"]),
                "verify": "ok" if happened.verify.get("ok") else "FAILED",
                "seconds": happened.seconds,
            }
        )
        say("\nTry next:")
        say(f"  cd {folder} && tailrace {'status' if keep else 'up --detach'}")
        say("  tailrace models credit")
        say("  tailrace query 'SELECT action, count() FROM credit_predictions GROUP BY action'")
        if accuracy["recovered"] is not None:
            emit(
                f"\nwithout the loop {_share(accuracy['without_loop'])}, with it {_share(accuracy['recovered'])}"
            )
    _require_all(missing)


def _require_all(missing: Sequence[str]) -> None:
    if missing:
        say(f"tailrace demo: did not happen: {'; '.join(missing)}")
        raise typer.Exit(1)


def _on_data(
    name: str, file: Path | None, folder: Path, rate: float | None, keep: bool, as_json: bool
) -> None:
    from tailrace.demo.data_sets import DATA_SETS
    from tailrace.demo.on_data import DataStory

    if name not in DATA_SETS:
        raise UsageError(f"--data is one of {', '.join(DATA_SETS)}, not {name!r}")
    report = dataclasses.asdict(DataStory(DATA_SETS[name], file, folder, rate, keep).run())
    missing, accuracy = report.pop("missing"), report["accuracy"]
    emit(report, as_json)
    if accuracy and not as_json:
        emit(
            f"\nwithout the loop {accuracy['without_loop']:.3f}, with it {accuracy['with_loop']:.3f} "
            f"(gain {accuracy['gain']:.3f}, 95 % interval {accuracy['low']:.3f} to {accuracy['high']:.3f})"
        )
    _require_all(missing)


def _day(ms: int | None) -> str:
    from tailrace.demo.milestones import day

    return "-" if ms is None else day(ms)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
