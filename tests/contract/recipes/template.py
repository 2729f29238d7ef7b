"""The template of CONTRIBUTING.md is everywhere: run in a copy of the tree to which only its file and entry came."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pandas as pd
import pytest

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.problems import ContractError
from tailrace.models.package.build import build_package
from tailrace.models.train import unfitted
from tailrace.package_data import data_dir
from tailrace.templates.page import page
from tailrace.templates.team_templates import find_template
from tailrace.trainer.work import TEMPLATES

NAME = "extra-trees"
PLAIN = {
    "model": "credit",
    "owner": {"team": "risk"},
    "features": {"income": {"type": "number"}, "purpose": {"categories": ["car", "home"]}},
    "target": {"name": "defaulted", "type": "boolean"},
}


def asking(**options: object) -> dict[str, object]:
    return {**PLAIN, "training": {"template": NAME, "options": options}}


contract = load_contract(json.dumps(asking(trees=7)))
assert contract.training.template == NAME
with pytest.raises(
    ContractError, match=r"options\.tres: is no field of a contract here; did you mean 'trees'\?"
):
    load_contract(json.dumps(asking(tres=7)))

editors = json.loads((data_dir("contracts") / "model-contract.schema.json").read_text())
jsonschema.validate(asking(trees=7), editors)
assert not jsonschema.Draft202012Validator(editors).is_valid(asking(tres=7))
assert not jsonschema.Draft202012Validator(editors).is_valid(asking(trees=0))
assert f"| `{NAME}` |" in page()
assert "`trees` (100)" in next(line for line in page().splitlines() if NAME in line)

rng = np.random.default_rng(1)
income, purpose = rng.normal(size=300), rng.choice(["car", "home"], 300).astype(object)
rows, truth = pd.DataFrame({"income": income, "purpose": purpose}), income + (purpose == "car") > 0.5
template, origin = find_template(NAME)
assert template in TEMPLATES
assert origin is None
package = build_package(
    unfitted(template, contract, options=contract.training.options), rows, truth, contract
)
assert "ExtraTreesClassifier(n_estimators=7" in package.manifest.lineage.estimator
assert package.manifest.holdout.metrics["auc"] > 0.9
