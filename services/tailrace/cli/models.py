"""Versions of models: ``tailrace train``, ``publish``, ``models``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, parsed, say
from tailrace.connection import home_dir
from tailrace.errors import UsageError

if TYPE_CHECKING:
    from tailrace.connection import Connection
    from tailrace.control.publish import Publication

_MAIN_METRICS = ("auc", "accuracy", "mae", "log_loss", "rmse")
"""The first of them that a version has stands in the short list."""

InvertedOption = Annotated[
    bool,
    typer.Option("--allow-inverted", help="Publish it also where it ranks the holdout the wrong way round."),
]


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
    allow_inverted: InvertedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the contract's template on a file and publish it as the model's next version.

    A template that a team brings has to be installed here, and runs as you.

    Without --until or --where the earliest fifth of the rows is used, so that the rest can be replayed. The last
    fifth of the rows used, in time, is held out, and the version is judged by it.

    Example: tailrace train electricity --data electricity.csv
    """
    from tailrace.contracts.instants import read_time
    from tailrace.contracts.state.fold_topics import contract_to_build_for
    from tailrace.control.publish import publish_package
    from tailrace.files.data_mapping import find_mapping
    from tailrace.models.train import train as train_package
    from tailrace.signing.trust import own_key

    until_ms = parsed("--until", until, read_time)
    addresses, key = connection(), own_key(home_dir())
    contract = contract_to_build_for(addresses, model)
    mapping = find_mapping(Path.cwd(), model)
    package = train_package(
        data, mapping, contract, until_ms=until_ms, where=where, allow_inverted=allow_inverted, say=say
    )
    say("publishing: the next version's number is asked for, then its chunks and manifest are written")
    _report(publish_package(addresses, package, key, home_dir()), as_json)


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
    output: Annotated[
        list[str] | None,
        typer.Option(help="The output that counts; where each class has one of its own, repeat it."),
    ] = None,
    of_class: Annotated[
        list[str] | None,
        typer.Option(
            "--class", help="The contract's class of each column of the output, in order; repeat it."
        ),
    ] = None,
    allow_inverted: InvertedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Publish an ONNX model as the model's next version, judged on the holdout.

    It reads one input per feature, named after it, or one matrix of all features in the contract's order, and
    gives probabilities by class, that of the positive class alone, or values. Data in files beside it is taken in.
    Where the model does not say which output counts or which class a column is, --output and --class do.

    Example: tailrace publish model.onnx --model credit --holdout labelled.csv
    """
    from tailrace.contracts.state.fold_topics import contract_to_build_for
    from tailrace.control.publish import publish_package
    from tailrace.files.data_mapping import find_mapping
    from tailrace.models.formats.onnx.files import onnx_bytes
    from tailrace.models.formats.onnx.outputs import OutputChoice
    from tailrace.models.package.build import BuildChecks, build_from_onnx
    from tailrace.models.train import frame_of, labelled_rows
    from tailrace.signing.trust import own_key

    data = onnx_bytes(file)
    addresses, key = connection(), own_key(home_dir())
    contract = contract_to_build_for(addresses, model)
    mapping = find_mapping(Path.cwd(), model)
    rows, _ = labelled_rows(holdout, mapping, contract, where, say)
    say(f"judging {file.name} on {rows.height:,} rows of {holdout.name}")
    package = build_from_onnx(
        data,
        frame_of(rows, contract),
        rows[contract.target.name].to_numpy(),
        contract,
        selection=f"{rows.height:,} rows of {holdout.name}",
        mapping=mapping,
        choice=OutputChoice(tuple(output or ()), tuple(of_class or ())),
        checks=BuildChecks(allow_inverted=allow_inverted),
    )
    _report(publish_package(addresses, package, key, home_dir()), as_json)


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
    every: Annotated[bool, typer.Option("--all", help="Every metric, and who published what.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List published versions: what they are in the rollout, and how they did on their holdout by the gates' metric.

    With --all every metric, who published them and their digests, and of one model also what each training run compared
    on the outcomes that it held back: candidate, champion, baseline and the other templates, by metric, with intervals.
    With --prune it lists what it removes, and asks first where a person looks on.

    Example: tailrace models credit
    """
    from tailrace.control.evaluations import evaluations
    from tailrace.control.versions import published_versions

    addresses = connection()
    if prune:
        _prune(addresses, model, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    versions = published_versions(addresses, home_dir(), model)
    if not versions:
        say(f"no version is published yet: `tailrace train {model or 'MODEL'} --data FILE.csv`")
    judged = evaluations(addresses, model)
    if as_json:
        emit([version | {"evaluations": _evaluations(version, judged)} for version in versions], as_json=True)
        return
    emit([_row(version) | (_more(version) if every else {}) for version in versions])
    for version in versions:
        if by := version["calibration"]:
            say(f"version {version['version']} of {version['model']}: {_calibrated(by, version['metrics'])}")
        if template := (version.get("lineage") or {}).get("template"):
            say(
                f"version {version['version']} of {version['model']} was trained by {template['name']} of "
                f"{template['distribution']} {template['version']}, sha256 {template['digest'][:12]}"
            )
    if model is not None and judged and every:
        say("what training runs found on the outcomes that they held back:")
        emit([_evaluation(e) for e in judged])


def _prune(addresses: Connection, model: str | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    from tailrace.contracts.state.fold_topics import contract_in_force
    from tailrace.control.prune import find_unneeded, remove

    if model is None:
        raise UsageError("--prune needs a model: `tailrace models MODEL --prune`")
    unneeded = find_unneeded(addresses, home_dir(), contract_in_force(addresses, model))
    rows = [{"version": u.version, "chunks": len(u.keys), "bytes": u.bytes, "why": u.why} for u in unneeded]
    emit(rows, as_json)
    what = f"{sum(u.bytes for u in unneeded):,} bytes of {len(unneeded)} versions"
    if not unneeded:
        say("nothing can go: every package is in use, or predictions that name it are kept")
    elif dry_run:
        say(f"{what} would be removed")
    else:
        if not yes and sys.stdin.isatty() and sys.stdout.isatty():
            typer.confirm(f"Remove {what}? They cannot come back", abort=True, err=True)
        remove(addresses, home_dir(), model, unneeded)
        say(f"removed {what}; what they were stays, see `tailrace models {model}`")


def _report(published: Publication, as_json: bool) -> None:
    from tailrace.control.publish import calibration_of

    emit(published.to_dict(), as_json)
    model, version = published.model, published.version
    goes = "it goes into service once its checks pass"
    if version > 1:
        goes = (
            "it goes into shadow once its checks pass, and into service once it proves better; "
            f"`tailrace promote {model} {version}` does not wait for that"
        )
    if (by := calibration_of(published.manifest)) is not None:
        say(_calibrated(by, published.metrics))
    say(f"published {model} version {version}; {goes}")


def _evaluations(version: Mapping[str, Any], judged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the run that the version comes from."""
    by = ("candidate", version["model"], version["version"])
    runs = {e["run"] for e in judged if (e["who"], e["model"], e["version"]) == by}
    return [e for e in judged if e["run"] in runs]


def _evaluation(e: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table; ``--json`` has the rest."""
    figures = {name: None if e[name] is None else f"{e[name]:.4f}" for name in ("value", "low", "high")}
    shown = ("run", "state", "who", "template", "version", "metric")
    return {**{name: e[name] for name in shown}, "run": e["run"][:8], **figures, "n": e["n"]}


def _row(version: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table; ``--all`` has more, ``--json`` the rest."""
    metrics = version["metrics"]
    main = next((name for name in _MAIN_METRICS if name in metrics), None)
    return {
        **{name: version[name] for name in ("model", "version", "state", "format", "rows")},
        **({} if version["trusted"] else {"state": f"{version['state']}, untrusted"}),
        "holdout": "" if main is None else f"{main} {metrics[main]:.4f}",
        "published": version["published_at"][:19] + "Z",
    }


def _more(version: Mapping[str, Any]) -> dict[str, Any]:
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in sorted(version["metrics"].items()))
    return {"holdout": metrics, "by": version["published_by"], "digest": version["digest"][:12]}


def _calibrated(by: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """What calibration did, for people."""
    changed = ", ".join(
        f"{name} {before:.4f} before and {metrics[name]:.4f} after"
        for name, before in sorted(by["metrics_before"].items())
        if name in metrics and f"{before:.4f}" != f"{metrics[name]:.4f}"
    )
    return f"probabilities are calibrated ({by['method']}): {changed}; training.calibrate: never leaves them alone"
