"""Versions side by side: ``tailrace experiment``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, say
from tailrace.cli.rollout import ModelArgument, ReasonOption, ask_for
from tailrace.errors import UsageError

_WIDTH = 32


class _What(StrEnum):
    show = "show"
    start = "start"
    stop = "stop"


@app.command()
def experiment(
    model: ModelArgument,
    what: Annotated[_What, typer.Argument(help="Show what is known, start one, or stop it.")] = _What.show,
    arm: Annotated[
        list[int] | None,
        typer.Option(help="A version that is to answer beside the champion; repeat it.", min=1),
    ] = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Compare versions that answer side by side, each some of the keys: by what the contract says answers are worth.

    Shares of keys and how they change are the contract's (``experiment``). What is shown rests on the reports on closed
    windows: what a request is worth under each arm, with its 95 % interval, and how probably the arm is the best.

    Example: tailrace experiment credit start --arm 3 --arm 4
    """
    if bool(arm) != (what is _What.start):
        raise UsageError(
            "start takes arms, and nothing else does: `tailrace experiment MODEL start --arm VERSION`"
        )
    if what is _What.start:
        ask_for("experiment", model, None, reason, as_json, arms=arm or [])
    elif what is _What.stop:
        ask_for("end-experiment", model, None, reason, as_json)
    else:
        _show(model, as_json)


def _show(model: str, as_json: bool) -> None:
    from tailrace.control.experiment_report import experiment_report

    report = experiment_report(connection(), model)
    if as_json:
        emit(report, as_json=True)
        return
    emit(rows(report["arms"]))
    state = "is running" if report["running"] else "is over"
    windows = report["windows"]
    say(
        f"the experiment {state}: {report['assign']}, {report['share']:.4g} of the keys; by {windows} closed "
        f"window{'' if windows == 1 else 's'} in which every arm answered"
    )


def rows(arms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines of the table; ``picture`` has all intervals on one scale."""
    ends = [end for arm in arms for end in (arm["low"], arm["high"]) if end is not None]
    return [
        {
            "arm": f"{arm['arm']}: version {arm['version']}",
            "share": f"{arm['probability']:.2%}",
            "requests": arm["requests"],
            "outcomes": arm["outcomes"],
            "value": _number(arm["value"]),
            "95 %": "" if arm["low"] is None else f"{_number(arm['low'])} to {_number(arm['high'])}",
            "best": "" if arm["best"] is None else f"{arm['best']:.1%}",
            "picture": picture(arm["low"], arm["value"], arm["high"], ends),
        }
        for arm in arms
    ]


def picture(low: float | None, value: float | None, high: float | None, ends: Sequence[float]) -> str:
    """An interval and its middle as a line of text, from the least to the greatest of the ends."""
    if low is None or value is None or high is None:
        return ""
    least, most = min(ends), max(ends)
    scale = (_WIDTH - 1) / (most - least) if most > least else 0.0
    first, middle, last = (round((each - least) * scale) for each in (low, value, high))
    line = [" "] * _WIDTH
    line[first : last + 1] = "-" * (last - first + 1)
    line[first], line[last], line[middle] = "|", "|", "o"
    return "".join(line).rstrip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
