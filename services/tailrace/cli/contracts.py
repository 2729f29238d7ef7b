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
    from tailrace.control.apply import ApplyPlan
    from tailrace.files.drafting.target import Task

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
    as_json: JsonOption = False,
) -> None:
    """Bring contracts into force: show what changes, refuse what breaks, and publish the rest.

    Services take a contract up while they run. Of several files none is applied where one is refused.

    Example: tailrace apply contracts/models/credit.yaml --dry-run
    """
    from tailrace.cli.control import contracts, features_in_service
    from tailrace.control.apply import apply as bring_into_force
    from tailrace.control.apply import contract_files, plan
    from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics

    files = contract_files(paths or [], Path())
    where = connection()
    if not dry_run:
        for difference in ensure_topics(where.kafka, control_topics()):
            say(f"warning: {difference}")
    in_force = contracts(where)
    plans = plan(files, in_force, features_in_service(where, home_dir()))
    if not as_json:
        for planned in plans:
            _say_plan(planned)
    if not dry_run:
        bring_into_force(where, plans, in_force, say)
    if as_json:
        emit([_plan_data(planned, dry_run) for planned in plans], as_json=True)
    elif not dry_run:
        for planned in plans:
            if planned.is_needed:
                emit(f"{planned.contract.model}: revision {planned.follows + 1} is in force")


@contracts_app.command()
def check(paths: PathsArgument = None, as_json: JsonOption = False) -> None:
    """Check contract files by themselves: grammar, names, expressions. Needs nothing that runs.

    Example: tailrace contracts check contracts/models/credit.yaml
    """
    from tailrace.contracts.language.load import load_contract
    from tailrace.contracts.problems import ContractError
    from tailrace.control.apply import contract_files

    problems = []
    valid = []
    for file in contract_files(paths or [], Path()):
        try:
            contract = load_contract(file)
            valid.append({"file": str(file), "model": contract.model, "digest": contract.digest})
        except ContractError as error:
            problems += error.problems
    if as_json:
        listed = [problem._asdict() for problem in problems]
        emit({"ok": not problems, "contracts": valid, "problems": listed}, as_json=True)
        if problems:
            raise typer.Exit(1)
    elif problems:
        raise ContractError(problems)
    else:
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

    facts: dict[str, Any] = {}
    path = Path(what)
    if path.suffix in (".yaml", ".yml") or path.exists():
        contract = load_contract(path)
        text = path.read_text(encoding="utf-8")
    else:
        from tailrace.cli.control import contracts

        applied = contracts(connection()).current.get(what)
        if applied is None:
            raise UsageError(
                f"no contract of a model {what!r} is applied: name a file, or run `tailrace apply`"
            )
        contract, text = applied.contract, applied.source_text
        facts = {name: getattr(applied, name) for name in ("revision", "applied_by", "applied_at")}
    if as_json:
        shown = {"model": contract.model, "digest": contract.digest, **facts, "contract": contract.to_dict()}
        emit(shown | {"no_effect_yet": contract.no_effect_yet()}, as_json=True)
    else:
        emit(annotated(contract, None if resolved else text).rstrip())


def _say_plan(plan: ApplyPlan) -> None:
    model = plan.contract.model
    if not plan.is_needed:
        say(f"{model}: nothing changes (revision {plan.follows})")
    elif plan.follows == 0:
        say(f"{model}: new")
    else:
        say(f"{model}: revision {plan.follows} -> {plan.follows + 1}")
        for change in plan.changes:
            say(f"  {change}")


def _plan_data(plan: ApplyPlan, dry_run: bool) -> dict[str, Any]:
    return {
        "file": plan.file,
        "model": plan.contract.model,
        "revision": plan.follows + 1 if plan.is_needed else plan.follows,
        "digest": plan.contract.digest,
        "applied": plan.is_needed and not dry_run,
        "changes": [change._asdict() for change in plan.changes],
    }
