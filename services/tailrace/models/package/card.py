"""The model card: what a version is, for people, in Markdown (after Mitchell et al., "Model Cards for Model
Reporting", 2019)."""

from __future__ import annotations

from collections.abc import Iterable

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.manifest import Conversion, Manifest


def model_card(manifest: Manifest, contract: ModelContract) -> str:
    lineage, conversion, holdout = manifest.lineage, manifest.conversion, manifest.holdout
    inputs = (f"| {i.name} | {i.type} | {_if_missing(i.name, manifest, contract)} |" for i in manifest.inputs)
    metrics = (f"| {name} | {value:.4f} |" for name, value in sorted(holdout.metrics.items()))
    compared = "; nothing to compare it with."
    if conversion is not None:
        compared = (
            f" ({conversion.note}); largest difference from the original on {conversion.rows:,} rows: "
            f"{conversion.max_abs_difference:.2g}{_of_spread(conversion)}."
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


def _of_spread(conversion: Conversion) -> str:
    if conversion.tolerance is None or conversion.spread is None:
        return ""
    return f", where up to {conversion.tolerance:.2g} of the outputs' spread ({conversion.spread:.3g}) is tolerated"


def _calibration(manifest: Manifest) -> str:
    by = manifest.calibration
    if by is None:
        return ""
    return (
        f"Probabilities are calibrated: {by.method}, slope {by.slope:.4g}, offset {by.offset:.4g}. Fitted on "
        f"{by.rows:,} other rows held out, it gives a log loss of {by.log_loss:.4f}, not {by.log_loss_before:.4f}.\n\n"
        + _before(manifest)
    )


def _before(manifest: Manifest) -> str:
    """The metrics of the same rows without calibration."""
    if manifest.holdout.uncalibrated is None:
        return ""
    before = (f"| {name} | {value:.4f} |" for name, value in sorted(manifest.holdout.uncalibrated.items()))
    return _table("| metric before calibration | value |", before) + "\n"
