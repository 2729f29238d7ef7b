"""What people ask of the loop: commands on the topic, signed by the home's key, and the answer to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit
from tailrace.connection import home_dir
from tailrace.errors import TailraceError

ModelArgument = Annotated[str, typer.Argument(help="Logical model.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the record.")]

_OF_A_STEP = (
    "model",
    "revision",
    "step",
    "version",
    "champion",
    "previous",
    "shadow",
    "experiment",
    "frozen",
    "off",
    "reason",
    "by",
)
_OF_A_RUN = ("model", "run_id", "state", "trigger", "window_start", "window_end", "labels")


@app.command()
def promote(
    model: ModelArgument,
    version: Annotated[int, typer.Argument(help="The version that is to answer.", min=1)],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion; the one before it goes on in shadow, to go back to.

    Example: tailrace promote credit 2
    """
    ask_for("promote", model, version, reason, as_json)


@app.command()
def rollback(model: ModelArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Bring the previous champion back.

    Example: tailrace rollback credit --reason "scores look wrong"
    """
    ask_for("rollback", model, None, reason, as_json)


@app.command()
def shadow(
    model: ModelArgument,
    version: Annotated[int, typer.Argument(help="The version that is to be compared.", min=1)],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let a version score the requests that the champion answers, until it is promoted or rejected.

    Example: tailrace shadow credit 1
    """
    ask_for("shadow", model, version, reason, as_json)


@app.command()
def reject(
    model: ModelArgument,
    version: Annotated[int, typer.Argument(help="The version that is out.", min=1)],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a version out for good.

    Example: tailrace reject credit 3 --reason "trained on wrong labels"
    """
    ask_for("reject", model, version, reason, as_json)


@app.command()
def freeze(model: ModelArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Stop every step that nobody asked for: versions wait where they are.

    Example: tailrace freeze credit --reason "audit until Friday"
    """
    ask_for("freeze", model, None, reason, as_json)


@app.command()
def unfreeze(model: ModelArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Let the rollout go on by itself, with all that became known meanwhile.

    Example: tailrace unfreeze credit
    """
    ask_for("unfreeze", model, None, reason, as_json)


@app.command()
def off(model: ModelArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Take every version out of the answers: the contract's fallback answers, at its end a person.

    Versions in shadow go on scoring.

    Example: tailrace off credit --reason "fraud ring under way"
    """
    ask_for("off", model, None, reason, as_json)


@app.command()
def on(model: ModelArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Let the champion answer again.

    Example: tailrace on credit
    """
    ask_for("on", model, None, reason, as_json)


@app.command()
def retrain(model: ModelArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Have the trainer train a version on the latest outcomes, without a trigger.

    Example: tailrace retrain credit --reason "new product line"
    """
    ask_for("retrain", model, None, reason, as_json)


def ask_for(
    command: str, model: str, version: int | None, reason: str, as_json: bool, arms: Sequence[int] = ()
) -> None:
    """Asks for it, and prints what became of it.

    Raises:
        TailraceError: it was refused, or nobody answered.
    """
    from tailrace.contracts.state.fold_topics import contract_in_force
    from tailrace.control.commands import ask

    where_is = connection()
    contract_in_force(where_is, model)
    answer = ask(where_is, home_dir(), command, model, version, reason, arms=arms)
    if answer.refusal is not None:
        raise TailraceError(f"refused: {answer.refusal}")
    found, names = (answer.step, _OF_A_STEP) if answer.run is None else (answer.run, _OF_A_RUN)
    assert found is not None
    emit({**{name: found[name] for name in names}, "command_id": answer.command_id}, as_json)
