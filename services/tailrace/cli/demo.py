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
    seconds: Annotated[float, typer.Option(help="How long applications stream.")] = 60,
    rate: Annotated[int, typer.Option(help="Applications a second.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the simulated loans.")] = 1,
    folder: Annotated[Path, typer.Option(help="Project folder; made anew.")] = Path(".tailrace-demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Starts everything, streams loans through a model, kills the scorer, swaps the model, and verifies.

    Example: tailrace demo --seconds 30 --keep
    """
    from tailrace.demo.story import Story

    happened = Story(folder, seconds, rate, seed, keep).run()
    if as_json:
        emit(dataclasses.asdict(happened), as_json=True)
    else:
        counts = happened.counts
        emit(
            {
                "requests": f"{counts['requests']:,}",
                "answered": f"{counts['predictions']:,} ({counts['lost']} lost, {counts['twice']} twice)",
                "by version": ", ".join(f"{v}: {n:,}" for v, n in happened.versions.items()),
                "recovery after SIGKILL": f"{happened.recovery_seconds} s",
                "verify": "ok" if happened.verify.get("ok") else "FAILED",
                "seconds": happened.seconds,
            }
        )
        say("\nTry next:")
        say(f"  cd {folder} && tailrace up --detach" if not keep else f"  cd {folder}")
        say("  tailrace query 'SELECT action, count() FROM credit_predictions GROUP BY action'")
        say("  tailrace tail credit.predictions --limit 3")
    if not happened.ok:
        say(f"tailrace demo: did not happen: {'; '.join(happened.missing)}")
        raise typer.Exit(1)
