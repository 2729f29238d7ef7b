"""Which contract a version can serve under, and which versions a change of a contract breaks."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.succession import VersionInService, check_succession
from tailrace.models.inputs import Input
from tailrace.models.rollout_state.in_service import all_misfits
from tailrace.testing.formula_model import formula_model

TEXT = """\
model: m
owner: {team: t}
features:
  a: {type: number}
  b: {categories: [x, y]}
target: {name: t, type: boolean}
"""


def contract(*changes: tuple[str, str]) -> ModelContract:
    text = TEXT
    for was, is_ in changes:
        assert was in text
        text = text.replace(was, is_)
    return load_contract(text)


def version(
    built_under: ModelContract, number: int = 1, role: str = "champion", **changed: Any
) -> VersionInService:
    manifest = formula_model(built_under, number, **{"impute": {}, **changed}).manifest
    return VersionInService(number, role, lambda new: all_misfits(manifest, new))


def refused(
    new: ModelContract, *in_service: VersionInService, current: ModelContract | None = None
) -> list[str]:
    violations = check_succession(new, [current or contract()], in_service=in_service)
    return [f"{'.'.join(map(str, each.path))}: {each.what}" for each in violations]


@pytest.mark.parametrize(
    ("was", "is_", "reason"),
    [
        pytest.param(
            "{type: number}", "{type: number, missing: impute}",
            "features.a.missing: version 1 (champion) could not serve: the contract imputes a, and the package has no "
            "value for it", id="an imputation without a value",
        ),
        pytest.param(
            "  a: {type: number}\n", "",
            "features.a: version 1 (champion) could not serve: the model reads a, which the contract does not have",
            id="a feature that it needs",
        ),
        pytest.param(
            "[x, y]", "[x, y, z]",
            "features.b.categories: version 1 (champion) could not serve: the model was built without the categories z "
            "of b", id="categories",
        ),
    ],
)  # fmt: skip
def test_a_change_that_a_version_could_not_serve_is_refused(was: str, is_: str, reason: str) -> None:
    assert refused(contract((was, is_)), version(contract())) == [reason]


@pytest.mark.parametrize(
    ("was", "is_"),
    [
        pytest.param("{type: number}", "{type: number, missing: pass}", id="missing values pass"),
        pytest.param("{type: number}", "{type: number, min: 0}", id="limits"),
        pytest.param("[x, y]", "[x]", id="a category less"),
        pytest.param("  a:", "  c: {type: boolean}\n  a:", id="a feature more"),
    ],
)
def test_a_change_that_versions_do_not_notice_is_taken(was: str, is_: str) -> None:
    assert refused(contract((was, is_)), version(contract())) == []


def test_each_version_that_answers_or_stands_by_is_asked() -> None:
    roles = ("champion", "canary", "arm", "previous", "shadow")
    versions = [version(contract(), number, role) for number, role in enumerate(roles, 1)]
    new = contract(("{type: number}", "{type: number, missing: impute}"))
    reasons = refused(new, *versions)
    named = [f"version {number} ({role})" for number, role in enumerate(roles, 1)]
    assert [name in reason for name, reason in zip(named, reasons, strict=True)] == [True] * 5
    fits = version(contract(), 9, impute={"a": 1.0})
    assert refused(new, fits) == []


def test_what_a_version_cannot_serve_already_keeps_nothing_from_changing() -> None:
    current = contract(("{type: number}", "{type: number, missing: impute}"))
    new = contract(("{type: number}", "{type: number, missing: impute, max: 9}"))
    assert refused(new, version(contract()), current=current) == []


def test_a_version_that_reads_another_type_does_not_fit() -> None:
    inputs = (Input(name="a", type="boolean"),)
    (misfit,) = version(contract(), inputs=inputs).misfits(contract())
    assert misfit.what == "the model reads a as boolean, the contract says number"
