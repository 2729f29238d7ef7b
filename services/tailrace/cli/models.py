"""Versions of models: ``tailrace train``, ``publish``, ``models``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, say
from tailrace.connection import home_dir
from tailrace.errors import UsageError

if TYPE_CHECKING:
    from tailrace.connection import Connection
    from tailrace.control.publish import Publication


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="Logical model; its contract is applied.")],
    data: Annotated[Path, typer.Option(help="CSV or Parquet file with labels.", exists=True, dir_okay=False)],
    until: Annotated[
        str | None, typer.Option(help="Train on rows up to this time, such as 1996-12-31T00:00:00Z.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Train on rows where this SQL condition is true, such as 'alcohol >= 11'."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train the contract's template on a file and publish it as the model's next version.

    A template that a team brings has to be installed here, and runs as you.

    Without --until or --where the earliest fifth of the rows is used, so that the rest can be replayed. The last
    fifth of the rows used, in time, is held out, and the version is judged by it.

    Example: tailrace train electricity --data electricity.csv
    """
    from tailrace.contracts.state.fold_topics import contract_in_force
    from tailrace.control.publish import publish_package
    from tailrace.files.data_mapping import find_mapping
    from tailrace.files.instants import parse_time
    from tailrace.models.train import train as train_package
    from tailrace.signing.trust import own_key

    try:
        until_ms = None if until is None else parse_time(until)
    except ValueError as error:
        raise UsageError(f"--until: {error}") from None
    where_is, key = connection(), own_key(home_dir())
    contract = contract_in_force(where_is, model)
    package = train_package(
        data, find_mapping(Path.cwd(), model), contract, until_ms=until_ms, where=where, say=say
    )
    say("publishing: the next version's number is asked for, then its chunks and manifest are written")
    _report(publish_package(where_is, package, key, home_dir()), as_json)


@app.command()
def publish(
    file: Annotated[
        Path,
        typer.Argument(help="An ONNX model, or an MLflow model directory with an ONNX flavour.", exists=True),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="Logical model; its contract is applied.")],
    holdout: Annotated[
        Path,
        typer.Option(
            help="CSV or Parquet file with labelled rows that it was not fitted on.",
            exists=True,
            dir_okay=False,
        ),
    ],
    where: Annotated[str | None, typer.Option(help="Only rows where this SQL condition is true.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Publish an ONNX model as the model's next version, judged on the holdout.

    It reads one input per feature, named after it, or one matrix of all features in the contract's order, and
    gives probabilities by class, that of the positive class alone, or values. Data in files beside it is taken in.

    Example: tailrace publish model.onnx --model credit --holdout labelled.csv
    """
    from tailrace.contracts.state.fold_topics import contract_in_force
    from tailrace.control.publish import publish_onnx
    from tailrace.files.data_mapping import find_mapping
    from tailrace.models.formats.onnx.files import onnx_bytes
    from tailrace.models.train import frame_of, labelled_rows

    data = onnx_bytes(file)
    where_is = connection()
    contract = contract_in_force(where_is, model)
    rows, _ = labelled_rows(holdout, find_mapping(Path.cwd(), model), contract, where, say)
    say(f"judging {file.name} on {rows.height:,} rows of {holdout.name}")
    published = publish_onnx(
        data,
        frame_of(rows, contract),
        rows[contract.target.name].to_numpy(),
        contract,
        where_is,
        home_dir(),
        f"{rows.height:,} rows of {holdout.name}",
    )
    _report(published, as_json)


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove the packages of past versions that no kept prediction names."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --prune: say what would go, and remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --prune: do not ask first.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List published versions: what they are in the rollout, how they did on their holdout, where they come from.

    Of one model also what each training run compared on the outcomes that it held back: candidate, champion,
    baseline and the other templates, by metric, with intervals. With --prune it lists what it removes, and asks first
    where a person looks on.

    Example: tailrace models credit
    """
    from tailrace.control.evaluations import evaluations
    from tailrace.control.versions import published_versions

    where_is = connection()
    if prune:
        _prune(where_is, model, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    found = published_versions(where_is, home_dir(), model)
    if not found:
        say(f"no version is published yet: `tailrace train {model or 'MODEL'} --data FILE.csv`")
    judged = evaluations(where_is, model)
    if as_json:
        emit([version | {"evaluations": _evaluations(version, judged)} for version in found], as_json=True)
        return
    emit([_row(version) for version in found])
    for version in found:
        if template := (version.get("lineage") or {}).get("template"):
            say(
                f"version {version['version']} of {version['model']} was trained by {template['name']} of "
                f"{template['distribution']} {template['version']}, sha256 {template['digest'][:12]}"
            )
    if model is not None and judged:
        say("what training runs found on the outcomes that they held back:")
        emit([_evaluation(e) for e in judged])


def _prune(where_is: Connection, model: str | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    from tailrace.contracts.state.fold_topics import contract_in_force
    from tailrace.control.prune import find_unneeded, remove

    if model is None:
        raise UsageError("--prune needs a model: `tailrace models MODEL --prune`")
    found = find_unneeded(where_is, home_dir(), contract_in_force(where_is, model))
    emit(
        [{"version": f.version, "chunks": len(f.keys), "bytes": f.bytes, "why": f.why} for f in found],
        as_json,
    )
    what = f"{sum(f.bytes for f in found):,} bytes of {len(found)} versions"
    if not found:
        say("nothing can go: every package is in use, or predictions that name it are kept")
    elif dry_run:
        say(f"{what} would be removed")
    else:
        if not yes and sys.stdin.isatty() and sys.stdout.isatty():
            typer.confirm(f"Remove {what}? They cannot come back", abort=True, err=True)
        remove(where_is, home_dir(), model, found)
        say(f"removed {what}; what they were stays, see `tailrace models {model}`")


def _report(published: Publication, as_json: bool) -> None:
    report = published.to_dict()
    emit(report, as_json)
    say(
        f"published {published.model} version {published.version}; "
        + (
            "it goes into service once its checks pass"
            if published.version == 1
            else "it goes into shadow once its checks pass, and into service once it proves better; "
            f"`tailrace promote {published.model} {published.version}` does not wait for that"
        )
    )


def _evaluations(version: Mapping[str, Any], judged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the run that the version comes from."""
    by = (version["model"], version["version"])
    runs = {e["run"] for e in judged if e["who"] == "candidate" and (e["model"], e["version"]) == by}
    return [e for e in judged if e["run"] in runs]


def _evaluation(e: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table; ``--json`` has the rest."""
    told = {name: None if e[name] is None else f"{e[name]:.4f}" for name in ("value", "low", "high")}
    shown = ("run", "state", "who", "template", "version", "metric")
    return {**{name: e[name] for name in shown}, "run": e["run"][:8], **told, "n": e["n"]}


def _row(version: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table; ``--json`` has the rest."""
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in sorted(version["metrics"].items()))
    return {
        "model": version["model"],
        "version": version["version"],
        "state": version["state"] if version["trusted"] else f"{version['state']}, untrusted",
        "format": version["format"],
        "rows": version["rows"],
        "holdout": metrics,
        "published": version["published_at"][:19] + "Z",
        "by": version["published_by"],
        "digest": version["digest"][:12],
    }
