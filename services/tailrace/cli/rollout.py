"""What people ask of the loop: commands on the topic, signed by the home's key, and the answer to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit
from tailrace.connection import home_dir
from tailrace.errors import TailraceError

ModelArgument = Annotated[str, typer.Argument(help="Logical model.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the record.")]

_OF_A_STEP = (
    *(
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
    ),
    *("reason", "by"),
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


def _of_a_model(command: str, does: str, example: str) -> None:
    """A command that needs the model's name alone."""

    @app.command(command, help=f"{does}\n\nExample: tailrace {command} credit {example}".rstrip())
    def ask(model: ModelArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
        ask_for(command, model, None, reason, as_json)


_of_a_model("rollback", "Bring the previous champion back.", '--reason "scores look wrong"')
_of_a_model(
    "freeze",
    "Stop every step that nobody asked for: versions wait where they are, and no training run begins. "
    "`tailrace status` says what is held back; `tailrace retrain` trains all the same.",
    '--reason "audit until Friday"',
)
_of_a_model("unfreeze", "Let the rollout go on by itself, with all that became known meanwhile.", "")
_of_a_model(
    "off",
    "Take every version out of the answers: the contract's fallback answers, at its end a person.\n\n"
    "Versions in shadow go on scoring.",
    '--reason "fraud ring under way"',
)
_of_a_model("on", "Let the champion answer again.", "")
_of_a_model(
    "retrain",
    "Have the trainer train a version on the latest outcomes, without a trigger.",
    '--reason "new product line"',
)


def ask_for(
    command: str, model: str, version: int | None, reason: str, as_json: bool, arms: Sequence[int] = ()
) -> None:
    """Asks for it, and prints what became of it.

    Raises:
        TailraceError: it was refused, or nobody answered.
    """
    from tailrace.contracts.state.fold_topics import contract_in_force
    from tailrace.control.commands import ask

    addresses = connection()
    contract_in_force(addresses, model)
    answer = ask(addresses, home_dir(), command, model, version, reason, arms=arms)
    if answer.refusal is not None:
        raise TailraceError(f"refused: {answer.refusal}")
    record: Mapping[str, Any] | None = answer.run or answer.step
    assert record is not None
    names = _OF_A_STEP if answer.run is None else _OF_A_RUN
    emit({**{name: record[name] for name in names}, "command_id": answer.command_id}, as_json)
