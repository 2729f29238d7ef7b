"""Running everything on one machine: up, down, status, env, logs, run."""

from __future__ import annotations

import importlib
import shlex
import time
from collections import deque
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.access.private_files import keep_private
from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, emit, say
from tailrace.connection import home_dir
from tailrace.errors import UsageError

if TYPE_CHECKING:
    from tailrace.local.home import Home

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Folder that holds what runs.  [default: ./.tailrace]")
]


@app.command()
def up(
    home: HomeOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Go on in the background; return when all is ready.")
    ] = False,
) -> None:
    """Start Kafka, registry, ClickHouse and the services here, and apply contracts/models.

    What KAFKA_BOOTSTRAP_SERVERS, SCHEMA_REGISTRY_URL and CLICKHOUSE_URL name is used instead of started.

    Example: tailrace up --detach
    """
    from tailrace.contracts.state.contracts import Contracts
    from tailrace.control.apply import plan
    from tailrace.local import updown
    from tailrace.local.home import contract_files

    where = _home(home)
    # What a contract says wrong is better known before everything is started than after.
    plan(contract_files(Path.cwd()), Contracts())

    def ready() -> None:
        say("ready: `tailrace status` says how things are" + ("" if detach else ", Ctrl-C ends them"))

    if detach:
        updown.detach(where, Path.cwd(), say)
        ready()
    else:
        updown.run(where, Path.cwd(), say, ready)


@app.command()
def down(
    home: HomeOption = None,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the home too: data, logs and keys.")] = False,
) -> None:
    """End what `tailrace up` started; its data stays.

    Example: tailrace down --purge
    """
    from tailrace.local import updown

    where = _home(home)
    if not updown.down(where, say):
        say(f"nothing runs in {where}")
    if purge:
        updown.purge(where)
        say(f"removed {where}")


@app.command()
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Say what runs, where, and whether it is well; and which version of each model serves.

    Example: tailrace status --json
    """
    from tailrace.cli.control import models_in_force
    from tailrace.connection import Connection
    from tailrace.errors import TailraceError, Unavailable
    from tailrace.local.status import status as ask_everything

    def ask_models(connection: Connection) -> list[dict[str, Any]] | None:
        try:
            return models_in_force(connection)
        except (Unavailable, TailraceError) as away:  # what is away is what one wants to see here
            say(f"models: {away}")
            return None

    report = ask_everything(_home(home), ask_models)
    servers = [{"name": name, **report[name]} for name in ("kafka", "registry", "clickhouse")]
    programs = [*servers, *report["services"]]
    _say_problems(report, programs)
    if as_json:
        emit(report, as_json=True)
        return
    columns = ("name", "healthy", "address", "pid", "restarts", "lag", "waiting")
    emit([{column: program.get(column) for column in columns} | _lag(program) for program in programs])
    if report["models"]:
        print()
        # All topics of a model are in its lane; the whole list is in the JSON.
        emit([{**model, **_shortened(model)} for model in report["models"]])


def _say_problems(report: Mapping[str, Any], programs: Sequence[Mapping[str, Any]]) -> None:
    """What a person has to know first: nobody keeps it running, something is full, something dies again and again."""
    from tailrace.local.deaths import sentence
    from tailrace.local.room import Shortage, advice

    if not report["kept"]:
        say(
            "nobody brings back what dies here: the `tailrace up` that started it was killed. `tailrace up --detach` "
            "takes over, `tailrace down` ends everything"
        )
    for short in report["short"]:
        say(advice([Shortage(**short)]))
    for model in report["models"] or ():
        if (held := model.get("held_contract")) is not None:
            say(
                f"a change of the contract of {model['model']} by {held['applied_by']} is held until every version "
                f"that answers fits it: `tailrace contracts show {model['model']}`"
            )
        if (back := model.get("held_back")) is not None:
            say(_held_back_sentence(model["model"], back))
    waiting = {why for program in programs for why in (program.get("models_waiting") or {}).items()}
    for model, why in sorted(waiting):
        say(f"requests to {model} wait: {why}")
    for program in programs:
        if (program.get("deaths") or {}).get("lately"):
            say(sentence(program["name"], program["deaths"]))


def _lag(program: Mapping[str, Any]) -> dict[str, Any]:
    """What is only estimated says so."""
    return {"lag": f"about {program['lag']:,}"} if program.get("lag_counted") is False else {}


def _held_back_sentence(model: str, held_back: Mapping[str, Any]) -> str:
    """What a freeze holds back, for people."""
    promotions, candidates = (", ".join(map(str, held_back[name])) for name in ("promotions", "candidates"))
    kept = [
        *([f"the promotion of version {promotions}"] if promotions else []),
        *([f"the trial of version {candidates}"] if candidates else []),
        *(["a training run"] if held_back["training"] else []),
    ]
    listed = ", ".join(kept) or "nothing so far"
    return f"{model} is frozen; held back: {listed}. `tailrace unfreeze {model}` lets it go on"


def _shortened(model: Mapping[str, Any]) -> dict[str, str]:
    """What is shorter than in the JSON: lists of versions, those that answer with the share of each, the lane."""
    canary = model["canary"]
    listed = {name: ", ".join(map(str, model[name])) for name in ("shadow", "candidates")}
    return {
        **listed,
        "held_contract": ""
        if model["held_contract"] is None
        else f"revision {model['held_contract']['revision']}",
        "held_back": ", ".join(name for name, held in (model["held_back"] or {}).items() if held),
        "canary": "" if canary is None else f"{canary['version']}: {canary['share']:.1%}",
        "arms": ", ".join(f"{arm['version']}: {arm['probability']:.1%}" for arm in model["arms"]),
        "topics": f"{model['topics'][0].rpartition('.')[0]}.*",
    }


class EnvUser(StrEnum):
    APPLICATION = "application"
    OPS = "ops"


@app.command()
def env(
    home: HomeOption = None,
    user: Annotated[
        EnvUser,
        typer.Option("--user", help="As whom: application sends and reads answers, ops looks at everything."),
    ] = EnvUser.APPLICATION,
    as_json: JsonOption = False,
) -> None:
    """Print addresses and credentials of what runs as lines for a shell, for programs of your own.

    Example: eval "$(tailrace env)"
    """
    from tailrace.local.environment import program_environment

    variables = program_environment(_home(home), user)
    for name in ("SCHEMA_REGISTRY_URL", "CLICKHOUSE_URL"):
        if name not in variables:
            say(f"{name} stays as this shell has it: with credentials, which Tailrace has not written down")
    if as_json:
        emit(variables, as_json=True)
    else:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="A service, or kafka, registry, clickhouse, up.")],
    home: HomeOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 100,
) -> None:
    """Print the log of one service.

    Example: tailrace logs scorer -f
    """
    path = _home(home).log(service)
    if not path.exists():
        known = sorted(file.stem for file in path.parent.glob("*.log"))
        hint = f"there is one of {', '.join(known)}" if known else "nothing has run in this home yet"
        raise UsageError(f"there is no log of {service!r}: {hint}")
    with path.open(errors="replace") as file:
        print("".join(deque(file, lines)), end="", flush=True)
        while follow:
            if more := file.read():
                print(more, end="", flush=True)
            else:
                time.sleep(0.2)


@app.command()
def run(service: Annotated[str, typer.Argument(help="A service, or registry, clickhouse, init.")]) -> None:
    """Run one service in the foreground, as containers and `tailrace up` do.

    It is told by the environment where Kafka, registry and ClickHouse are.

    Example: eval "$(tailrace env)" && tailrace run scorer
    """
    from tailrace.local.confined import confine_service
    from tailrace.services import PROGRAMS, SERVICES

    if service not in PROGRAMS:
        raise UsageError(f"there is no service {service!r}: it is one of {', '.join(PROGRAMS)}")
    keep_private()
    if service in SERVICES:  # registry and ClickHouse confine themselves, once their doors are open
        confine_service(service)
    importlib.import_module(PROGRAMS[service]).main()


def _home(given: Path | None) -> Home:
    from tailrace.local.home import Home

    return Home(given or home_dir())
