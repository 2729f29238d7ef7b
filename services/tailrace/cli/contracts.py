"""Writing, checking, showing and applying model contracts: init, apply, contracts check|show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, parsed, say
from tailrace.connection import home_dir
from tailrace.errors import UsageError

if TYPE_CHECKING:
    from tailrace.connection import Connection
    from tailrace.contracts.state.contracts import AppliedContract, Contracts
    from tailrace.control.apply import ApplyPlan
    from tailrace.files.drafting.target import Task
    from tailrace.files.numbers import Decimal

contracts_app = typer.Typer(no_args_is_help=True, help="Check and show model contracts.")
app.add_typer(contracts_app, name="contracts")

PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[PATH]...", help="Files or folders.  [default: contracts/models]"),
]


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="A CSV file with a header (gzip, too), or Parquet.")],
    target: Annotated[str, typer.Option(help='What to predict: a column, or SQL such as "quality >= 7".')],
    name: Annotated[str, typer.Option(help="The model's name.")],
    time: Annotated[str | None, typer.Option(help="Column of the event time.")] = None,
    time_format: Annotated[
        str | None,
        typer.Option(
            help="How it is written: iso, epoch-seconds and finer, excel-days, or like '%d.%m.%Y %H:%M'."
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Column of the key: a customer, a loan.")] = None,
    positive: Annotated[
        str | None, typer.Option(help="The value of the target column that is to be predicted, yes or no.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="binary, multiclass or regression, where the target can be more than one."),
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="Column to log and not to give to the model; may be repeated.")
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option(help="Column to keep that would be left out; may be repeated.")
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(
            help="Word for a missing value in any column; not:WORD for one that is a value. Repeatable."
        ),
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="Time between two rows of a file without times, such as 30min.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a CSV file, such as cp1252.")] = None,
    decimal: Annotated[
        str | None, typer.Option(help="What stands before decimals in a CSV file: '.' or ','.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a data file's minimal contract to contracts/models, and how its rows are read to contracts/data.

    What is found in the file, left out of it and taken for granted is said. docs/files.md has what it understands.

    Example: tailrace init wine.csv --target "quality >= 7" --name wine
    """
    import shlex
    import time as clock

    from tailrace.contracts.language.durations import parse_duration
    from tailrace.control.apply import applied_by
    from tailrace.files.drafting.draft import DraftOptions, draft, write

    options = DraftOptions(
        time=time,
        time_format=time_format,
        key=key,
        positive=positive,
        task=_task(task),
        context=context or (),
        keep=feature or (),
        missing=missing or (),
        every_ms=parsed("--every", every, parse_duration),
        encoding=encoding,
        decimal=_decimal(decimal),
    )
    drafted = draft(file, name, target, options, team=applied_by(), now_ms=int(clock.time() * 1000))
    contract_path, mapping_path = write(drafted, Path(), overwrite=force)
    for note in drafted.notes:
        say(note)
    if as_json:
        paths = {"contract": str(contract_path), "data": str(mapping_path)}
        emit({**paths, "notes": drafted.notes}, as_json=True)
    else:
        emit(drafted.contract_text.rstrip())
        say(
            f"wrote {contract_path} and {mapping_path}; next: `tailrace apply`, then "
            f"`tailrace train {name} --data {shlex.quote(str(file))}`"
        )


def _decimal(text: str | None) -> Decimal | None:
    known: dict[str, Decimal] = {".": ".", ",": ","}
    if text is not None and text not in known:
        raise UsageError(f"--decimal {text!r} is not known: '.' or ','")
    return None if text is None else known[text]


def _task(text: str | None) -> Task | None:
    tasks: dict[str, Task] = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}
    if text is not None and text not in tasks:
        raise UsageError(f"--task {text!r}: one of {', '.join(tasks)}")
    return None if text is None else tasks[text]


@app.command()
def apply(
    paths: PathsArgument = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")
    ] = False,
    when_published: Annotated[
        bool,
        typer.Option(
            "--when-published",
            help="Hold a change that a version in service could not serve, until every version that answers fits it.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring contracts into force: show what changes, refuse what breaks, and publish the rest.

    Services take a contract up while they run. Of several files none is applied where one is refused. A change that a
    version which answers or stands by could not serve is refused. Where requests that producers send now would become
    dead letters, it says how many of the latest, and for which fields.

    Example: tailrace apply contracts/models/credit.yaml --dry-run
    """
    from tailrace.cli.control import contracts, in_service
    from tailrace.control.apply import apply as bring_into_force
    from tailrace.control.apply import contract_files, plan
    from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics

    files = contract_files(paths or [], Path())
    where = connection()
    if not dry_run:
        for difference in ensure_topics(where.kafka, control_topics()):
            say(f"warning: {difference}")
    in_force = contracts(where)
    plans = plan(files, in_force, in_service(where, home_dir()), when_published=when_published)
    warnings = [_warnings(where, planned, in_force) for planned in plans]
    if not as_json:
        for planned, of_plan in zip(plans, warnings, strict=True):
            _say_plan(planned)
            for warning in of_plan:
                say(f"warning: {planned.contract.model}: {warning}")
    if not dry_run:
        bring_into_force(where, plans, in_force, say)
    if as_json:
        data = zip(plans, warnings, strict=True)
        emit(
            [_plan_data(planned, dry_run) | {"warnings": of_plan} for planned, of_plan in data], as_json=True
        )
    elif not dry_run:
        for planned in plans:
            if planned.is_needed:
                emit(_outcome(planned))


@contracts_app.command()
def check(paths: PathsArgument = None, as_json: JsonOption = False) -> None:
    """Check contract files by themselves: grammar, names, expressions, fields without effect. Needs nothing that runs.

    A field that nothing acts on in this version is a problem where somebody would rely on it, and else a warning.

    Example: tailrace contracts check contracts/models/credit.yaml
    """
    from tailrace.contracts.language.load import check_contract_file
    from tailrace.contracts.language.without_effect import misleading_fields, unused_fields
    from tailrace.contracts.language.yaml_file import read_yaml
    from tailrace.contracts.problems import ContractError
    from tailrace.control.apply import contract_files

    problems, warnings = [], []
    valid = []
    for file in contract_files(paths or [], Path()):
        try:
            yaml = read_yaml(file)
            contract = check_contract_file(yaml)
            unused = unused_fields(contract)
            warnings += [yaml.problem(each.violation) for each in unused if not each.entry.misleads]
            yaml.refuse(misleading_fields(contract))
            valid.append({"file": str(file), "model": contract.model, "digest": contract.digest})
        except ContractError as error:
            problems += error.problems
    if as_json:
        listed = [problem._asdict() for problem in problems]
        remarks = [warning._asdict() for warning in warnings]
        emit({"ok": not problems, "contracts": valid, "problems": listed, "warnings": remarks}, as_json=True)
        if problems:
            raise typer.Exit(1)
        return
    for warning in warnings:
        say(f"warning: {warning}")
    if problems:
        raise ContractError(problems)
    for entry in valid:
        emit(f"{entry['file']}: ok, {entry['model']} {entry['digest'][:12]}")


@contracts_app.command()
def show(
    what: Annotated[
        str, typer.Argument(metavar="MODEL|PATH", help="A model with an applied contract, or a file.")
    ],
    resolved: Annotated[bool, typer.Option("--resolved", help="With all defaults.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a contract: as it was written, or with all defaults; fields without effect yet say so.

    Example: tailrace contracts show credit --resolved
    """
    from tailrace.contracts.language.load import load_contract
    from tailrace.contracts.language.show import annotated
    from tailrace.contracts.language.without_effect import unused_fields
    from tailrace.contracts.problems import format_path

    facts: dict[str, Any] = {}
    path = Path(what)
    if path.suffix in (".yaml", ".yml") or path.exists():
        contract = load_contract(path)
        text = path.read_text(encoding="utf-8")
    else:
        from tailrace.cli.control import contracts
        from tailrace.contracts.language.diff import changes

        fold = contracts(connection())
        applied, held = fold.current.get(what), fold.held.get(what)
        if applied is None:
            raise UsageError(
                f"no contract of a model {what!r} is applied: name a file, or run `tailrace apply`"
            )
        contract, text = applied.contract, applied.source_text
        facts = {name: getattr(applied, name) for name in ("revision", "applied_by", "applied_at")}
        facts["held"] = None if held is None else _held_data(held)
        if held is not None:
            say(
                f"{what}: a change by {held.applied_by} is held until every version that answers fits it: "
                + "; ".join(str(change) for change in changes(contract.to_dict(), held.contract.to_dict()))
            )
    if as_json:
        shown = {"model": contract.model, "digest": contract.digest, **facts, "contract": contract.to_dict()}
        unused = [format_path(path) for path, _ in unused_fields(contract)]
        emit(shown | {"no_effect_yet": unused}, as_json=True)
    else:
        emit(annotated(contract, None if resolved else text).rstrip())


@contracts_app.command()
def withdraw(
    model: Annotated[str, typer.Argument(help="A model of which a change is held.")],
    as_json: JsonOption = False,
) -> None:
    """Take back a change that `tailrace apply --when-published` holds.

    Example: tailrace contracts withdraw credit
    """
    from tailrace.control.apply import withdraw as take_back

    held = take_back(connection(), model)
    if as_json:
        emit({"model": model, "withdrawn": held.digest, "revision": held.revision - 1}, as_json=True)
    else:
        emit(f"{model}: the change is withdrawn; revision {held.revision - 1} stays in force")


def _held_data(held: AppliedContract) -> dict[str, Any]:
    names = ("revision", "digest", "applied_by", "applied_at")
    return {**{name: getattr(held, name) for name in names}, "contract": held.contract.to_dict()}


def _warnings(where: Connection, plan: ApplyPlan, in_force: Contracts) -> list[str]:
    """What a person should know who brings it into force."""
    from tailrace.control.latest_requests import refused_requests

    if not plan.is_needed or plan.follows == 0:
        return []
    model = plan.contract.model
    waits = [] if plan.is_held else [f"{why}: it cannot be gone back to" for why in plan.unfit]
    held = in_force.held.get(model)
    if held is not None and held.digest != plan.contract.digest:
        waits.append(f"the change that {held.applied_by} held is dropped by this one")
    return waits + refused_requests(where, in_force.current[model].contract, plan.contract)


def _outcome(plan: ApplyPlan) -> str:
    model, revision = plan.contract.model, plan.follows + 1
    if not plan.is_held:
        return f"{model}: revision {revision} is in force"
    return (
        f"{model}: held; it becomes revision {revision} once every version that answers fits it. `tailrace train` and "
        f"`tailrace publish` build for it; `tailrace contracts withdraw {model}` takes it back"
    )


def _say_plan(plan: ApplyPlan) -> None:
    model = plan.contract.model
    if not plan.is_needed and plan.is_held:
        say(f"{model}: held already, until every version that answers fits it")
    elif not plan.is_needed:
        say(f"{model}: nothing changes (revision {plan.follows})")
    elif plan.follows == 0:
        say(f"{model}: new")
    else:
        say(f"{model}: revision {plan.follows} -> {plan.follows + 1}")
        for change in plan.changes:
            say(f"  {change}")
        for why in plan.unfit if plan.is_held else ():
            say(f"  waits: {why}")


def _plan_data(plan: ApplyPlan, dry_run: bool) -> dict[str, Any]:
    return {
        "file": plan.file,
        "model": plan.contract.model,
        "revision": plan.follows + 1 if plan.is_needed else plan.follows,
        "digest": plan.contract.digest,
        "applied": plan.is_needed and not plan.is_held and not dry_run,
        "held": plan.is_held,
        "unfit": list(plan.unfit),
        "changes": [change._asdict() for change in plan.changes],
    }
