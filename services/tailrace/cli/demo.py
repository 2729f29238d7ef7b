"""``tailrace demo``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, emit, say


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="How long loans stream; half a year passes in it.")] = 90,
    rate: Annotated[int, typer.Option(help="Loans a second.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the simulated loans.")] = 1,
    folder: Annotated[Path, typer.Option(help="Project folder; made anew.")] = Path(".tailrace-demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Closes the loop before your eyes: loans, a change of the world, drift, retraining, shadow, promotion.

    Example: tailrace demo --seed 7 --keep
    """
    from tailrace.demo.story import Story

    happened = Story(folder, seconds, rate, seed, keep).run()
    found = dataclasses.asdict(happened)
    missing = found.pop("missing")
    if as_json:
        emit(found, as_json=True)
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
    if missing:
        say(f"tailrace demo: did not happen: {'; '.join(missing)}")
        raise typer.Exit(1)


def _day(ms: int | None) -> str:
    from tailrace.demo.beats import day

    return "-" if ms is None else day(ms)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
