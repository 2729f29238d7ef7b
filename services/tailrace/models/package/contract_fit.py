"""Whether a version can serve under a contract, which may be newer than the version."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.problems import Violation
from tailrace.models.manifest import Manifest

PUBLISH = "publish a version that was built for it"


def misfits(manifest: Manifest, contract: ModelContract) -> Iterator[Violation]:
    """Every reason why the version has no answer to any request under this contract."""
    for wanted in manifest.inputs:
        name, feature = wanted.name, contract.features.get(wanted.name)
        path = ("features", name)
        if feature is None:
            what = f"the model reads {name}, which the contract does not have"
            yield Violation(path, what, "add it to the contract's features or publish a version without it")
        elif feature.type != wanted.type:
            what = f"the model reads {name} as {wanted.type}, the contract says {feature.type}"
            yield Violation((*path, "type"), what, PUBLISH)
        elif feature.missing == "impute" and name not in manifest.impute:
            what = f"the contract imputes {name}, and the package has no value for it"
            yield Violation((*path, "missing"), what, PUBLISH)
    expected = contract.task, set(contract.classes), contract.positive_class
    if (manifest.task, set(manifest.classes), manifest.positive) != expected:
        model = f"a {manifest.task} model of {list(manifest.classes)} (positive: {manifest.positive})"
        says = f"{contract.task} of {contract.classes} (positive: {contract.positive_class})"
        yield Violation(("target",), f"{model}, where the contract says {says}", PUBLISH)


def unknown_categories(manifest: Manifest, contract: ModelContract) -> Iterator[Violation]:
    """Categories that requests may have under this contract, and that the version was built without: what it makes of
    such a request is an error or a guess.
    """
    for wanted in manifest.inputs:
        feature = contract.features.get(wanted.name)
        if feature is None or wanted.type != "category":
            continue
        unknown = [name for name in feature.categories or () if name not in wanted.categories]
        if unknown:
            what = f"the model was built without the categories {', '.join(unknown[:5])} of {wanted.name}"
            yield Violation(("features", wanted.name, "categories"), what, PUBLISH)
