"""The team's template of CONTRIBUTING.md: run where its distribution is installed, beside the tree as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import jsonschema
import numpy as np
import pandas as pd

from tailrace.contracts.language.load import load_contract
from tailrace.models.manifest import Manifest
from tailrace.models.train import train
from tailrace.package_data import data_dir

NAME = "acme-trees:shallow"
CONTRACT = {
    "model": "credit",
    "owner": {"team": "risk"},
    "features": {"income": {"type": "number"}, "purpose": {"categories": ["car", "home"]}},
    "target": {"name": "defaulted", "type": "boolean"},
    "training": {"template": NAME, "options": {"depth": 4}},
}

contract = load_contract(json.dumps(CONTRACT))
assert contract.training.template == NAME
jsonschema.validate(CONTRACT, json.loads((data_dir("contracts") / "model-contract.schema.json").read_text()))
assert "acme_trees" not in sys.modules  # neither a service nor a contract has loaded it

rng = np.random.default_rng(1)
income, purpose = rng.normal(size=400), rng.choice(["car", "home"], 400)
rows = pd.DataFrame({"income": income, "purpose": purpose, "defaulted": income + (purpose == "car") > 0.5})
rows["event_time"] = pd.date_range("2024-01-01", periods=400, freq="1h").strftime("%Y-%m-%dT%H:%M:%SZ")
with TemporaryDirectory() as folder:
    file = Path(folder) / "loans.csv"
    rows.to_csv(file, index=False)
    manifest = train(file, None, contract, where="TRUE").manifest
assert "DecisionTreeClassifier(max_depth=4" in manifest.lineage.estimator
origin = Manifest.from_bytes(manifest.to_bytes()).lineage.template
assert origin is not None
assert (origin.name, origin.distribution, origin.version) == (NAME, "acme-trees", "1.2")
