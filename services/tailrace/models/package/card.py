"""The model card: what a version is, for people, in Markdown (after Mitchell et al., "Model Cards for Model
Reporting", 2019)."""

from __future__ import annotations

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.manifest import Manifest


def model_card(manifest: Manifest, contract: ModelContract) -> str:
    lines = [
        f"# {manifest.model}",
        "",
        f"Predicts `{contract.target.name}` ({manifest.task}). Owner: {contract.owner.team}.",
        "",
        "## Model",
        "",
        f"    {manifest.lineage.estimator}",
        "",
        f"Carried as {manifest.format}"
        + (f" ({manifest.conversion.note}); " if manifest.conversion else "; ")
        + (
            f"largest difference from the original on {manifest.conversion.rows:,} rows: "
            f"{manifest.conversion.max_abs_difference:.2g}."
            if manifest.conversion
            else "nothing to compare it with."
        ),
        "",
        "| input | type | if missing |",
        "| --- | --- | --- |",
        *(f"| {i.name} | {i.type} | {_if_missing(i.name, manifest, contract)} |" for i in manifest.inputs),
        "",
        f"## Performance on {manifest.holdout.rows:,} rows held out",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(f"| {name} | {value:.4f} |" for name, value in sorted(manifest.holdout.metrics.items())),
        "",
        *_calibration(manifest),
        "## Data",
        "",
        f"{manifest.lineage.rows:,} rows: {manifest.lineage.selection}.",
        "",
        f"SHA-256 `{manifest.lineage.data_digest}`.",
        "",
        "Made with " + ", ".join(f"{k} {v}" for k, v in sorted(manifest.lineage.libraries.items())) + ".",
    ]
    return "\n".join(lines) + "\n"


def _if_missing(name: str, manifest: Manifest, contract: ModelContract) -> str:
    rule = contract.features[name].missing
    return f"{manifest.impute[name]} instead" if name in manifest.impute else rule


def _calibration(manifest: Manifest) -> list[str]:
    by = manifest.calibration
    if by is None:
        return []
    text = (
        f"Probabilities are calibrated: {by.method}, slope {by.slope:.4g}, offset {by.offset:.4g}. Fitted on "
        f"{by.rows:,} other rows held out, it gives a log loss of {by.log_loss:.4f}, not {by.log_loss_before:.4f}."
    )
    return [text, ""]
