"""The model card: what a version is, for people, in Markdown (after Mitchell et al., "Model Cards for Model
Reporting", 2019)."""

from __future__ import annotations

from collections.abc import Iterable

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.manifest import Manifest


def model_card(manifest: Manifest, contract: ModelContract) -> str:
    lineage, conversion, holdout = manifest.lineage, manifest.conversion, manifest.holdout
    inputs = (f"| {i.name} | {i.type} | {_if_missing(i.name, manifest, contract)} |" for i in manifest.inputs)
    metrics = (f"| {name} | {value:.4f} |" for name, value in sorted(holdout.metrics.items()))
    compared = "; nothing to compare it with."
    if conversion is not None:
        compared = (
            f" ({conversion.note}); largest difference from the original on {conversion.rows:,} rows: "
            f"{conversion.max_abs_difference:.2g}."
        )
    return f"""\
# {manifest.model}

Predicts `{contract.target.name}` ({manifest.task}). Owner: {contract.owner.team}.

## Model

    {lineage.estimator}

Carried as {manifest.format}{compared}

{_table("| input | type | if missing |", inputs)}
## Performance on {holdout.rows:,} rows held out

{_table("| metric | value |", metrics)}
{_calibration(manifest)}## Data

{lineage.rows:,} rows: {lineage.selection}.

SHA-256 `{lineage.data_digest}`.

Made with {", ".join(f"{name} {version}" for name, version in sorted(lineage.libraries.items()))}.
"""


def _table(head: str, rows: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in (head, "|" + " --- |" * (head.count("|") - 1), *rows))


def _if_missing(name: str, manifest: Manifest, contract: ModelContract) -> str:
    rule = contract.features[name].missing
    return f"{manifest.impute[name]} instead" if name in manifest.impute else rule


def _calibration(manifest: Manifest) -> str:
    by = manifest.calibration
    if by is None:
        return ""
    return (
        f"Probabilities are calibrated: {by.method}, slope {by.slope:.4g}, offset {by.offset:.4g}. Fitted on "
        f"{by.rows:,} other rows held out, it gives a log loss of {by.log_loss:.4f}, not {by.log_loss_before:.4f}.\n\n"
    )
