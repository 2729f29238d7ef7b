"""What a template cannot learn from is named: numbers beyond all scale, and outliers that squeeze the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tailrace.contracts.language.load import load_contract
from tailrace.errors import TailraceError
from tailrace.models.package.build import BuildChecks, build_package
from tailrace.models.train import unfitted
from tailrace.models.trainable import refuse_untrainable
from tailrace.templates.table import TEMPLATES
from tailrace.templates.template import Template

ROWS = 200


def case(kind: str, target: str) -> tuple[pd.DataFrame, Any]:
    draw = np.random.default_rng(0)
    x = pd.DataFrame({"a": draw.normal(size=ROWS), "b": draw.normal(size=ROWS)})
    y = x.a + 0.1 * draw.normal(size=ROWS)
    if kind == "empty":
        x["b"] = np.nan
    elif kind == "constant":
        x["b"] = 7.0
    elif kind == "outlier":
        x.loc[5, "b"] = 1e12
    else:
        x.loc[5, "b"] = float(kind)
    return x, (y if target == "number" else y > 0).to_numpy()


def build(template: Template, kind: str, target: str) -> dict[str, float]:
    contract = load_contract(
        f"model: m\nowner: {{team: t}}\ntarget: {{name: y, type: {target}}}\n"
        "features: {a: {type: number, missing: pass}, b: {type: number, missing: pass}}"
    )
    x, y = case(kind, target)
    refuse_untrainable(template, x, y, contract)
    fitted = unfitted(template, contract).fit(x[:160], y[:160])
    built = build_package(
        fitted,
        x[:160],
        y[:160],
        contract,
        holdout=(x[160:], y[160:]),
        checks=BuildChecks(allow_inverted=True),
    )
    return dict(built.manifest.holdout.metrics)


@pytest.mark.parametrize("target", ["boolean", "number"])
@pytest.mark.parametrize("template", TEMPLATES, ids=[template.name for template in TEMPLATES])
def test_each_template_trains_or_names_the_column(template: Template, target: str) -> None:
    for kind in ("1e155", "-1.7e308", "1e31"):
        with pytest.raises(TailraceError, match=r"^b is up to .*give it a min and a max"):
            build(template, kind, target)
    if template.needs_values:
        with pytest.raises(TailraceError, match=r"^b has no value in any row"):
            build(template, "empty", target)
    for kind in ("constant",) if template.needs_values else ("constant", "empty"):
        metrics = build(template, kind, target)
        assert metrics["auc"] > 0.9 if target == "boolean" else metrics["mae"] < 0.5
    if template.scales:
        with pytest.raises(TailraceError, match=r"^b is 1e.12 in a row"):
            build(template, "outlier", target)
    else:
        metrics = build(template, "outlier", target)
        assert metrics["auc"] > 0.9 if target == "boolean" else metrics["mae"] < 0.5


def test_a_column_that_is_one_value_but_for_a_few_rows_is_learned_from() -> None:
    contract = load_contract(
        "model: m\nowner: {team: t}\ntarget: {name: y, type: boolean}\nfeatures: {a: {type: number}}"
    )
    seldom = pd.DataFrame({"a": np.where(np.arange(ROWS) == 5, 1e9, 0.0)})
    refuse_untrainable(TEMPLATES[0], seldom, None, contract)
