"""Explanations next to those of the package shap, against the same background, where shap is exact.

Linear models by shap's LinearExplainer, trees by its interventional TreeExplainer in raw output: log-odds of boosting,
the value of a forest. ``exact`` is the definition by all subsets of the features. shap is installed in an environment
of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from benchmarks.harness import say
from tailrace.contracts.language.load import load_contract
from tailrace.models.columns import Array
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.package.build import build_package
from tailrace.models.reference import Reference
from tailrace.scorer.steps.explain import explained_values, shapley
from tailrace.verify.explained import DRAWS

SHAP = ["shap==0.48.0", f"scikit-learn=={version('scikit-learn')}"]
FEATURES, ROWS, EXPLAINED = 6, 3_000, 20
MODELS = {
    "logistic": LogisticRegression(),
    "linear": LinearRegression(),
    "gradient_boosting": GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=0),
    "random_forest": RandomForestRegressor(n_estimators=30, max_depth=6, random_state=0),
}
NAMES = [f"x{number}" for number in range(FEATURES)]


def rows(kind: str) -> tuple[pd.DataFrame, Array]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(ROWS, FEATURES)).astype(np.float32).astype(np.float64)
    risk = x[:, 0] * x[:, 1] + np.abs(x[:, 2]) * x[:, 3] - x[:, 4] + draw.normal(size=ROWS)
    return pd.DataFrame(x, columns=NAMES), risk if kind in ("linear", "random_forest") else risk > 0


def by_definition(say_about: Callable[[Array], Array], row: Array, background: Array) -> Array:
    """Shapley values by all subsets (Shapley 1953), of what is said on average over the background."""
    worth = {}
    for size in range(FEATURES + 1):
        for players in itertools.combinations(range(FEATURES), size):
            mixed = background.copy()
            mixed[:, players] = row[list(players)]
            worth[players] = float(say_about(mixed).mean())
    values = np.zeros(FEATURES)
    for players, value in worth.items():
        weight = 1.0 / (FEATURES * math.comb(FEATURES - 1, len(players))) if len(players) < FEATURES else 0.0
        for feature in set(range(FEATURES)) - set(players):
            values[feature] += weight * (worth[tuple(sorted((*players, feature)))] - value)
    return values


def compare(kind: str, folder: Path, python: Path) -> dict[str, Any]:
    x, y = rows(kind)
    target = "number" if kind in ("linear", "random_forest") else "boolean"
    features = ", ".join(f"{name}: {{type: number}}" for name in NAMES)
    contract = load_contract(
        f"{{model: m, owner: {{team: t}}, features: {{{features}}}, target: {{name: y, type: {target}}}}}"
    )
    fitted = clone(MODELS[kind]).fit(x, y)
    package = build_package(fitted, x, y, contract)
    # shap knows nothing of a calibration.
    manifest = package.manifest.model_copy(update={"calibration": None})
    model = LoadedModel(manifest, load_model(manifest, package.parts["model"]))
    columns = Reference.from_bytes(package.parts["reference"]).background_columns(manifest.inputs)
    background = np.column_stack([columns[name] for name in NAMES])
    wanted = x.to_numpy()[-EXPLAINED:]
    given = dict(zip(NAMES, wanted.T, strict=True))
    draws = np.array([shapley(model, columns, given, np.arange(EXPLAINED), draw) for draw in range(DRAWS)])
    ours, errors = draws.mean(axis=0), draws.std(axis=0, ddof=1) / math.sqrt(DRAWS)

    def answer(matrix: Array) -> Array:
        chosen = np.full(len(matrix), len(manifest.classes) // 2)
        return explained_values(model, dict(zip(NAMES, matrix.T, strict=True)), chosen)

    exact = np.array([by_definition(answer, row, background) for row in wanted])
    arrays = folder / f"{kind}.npz"
    np.savez(arrays, x=x.to_numpy(), y=np.asarray(y), background=background, wanted=wanted)
    peer = Path(__file__).with_name("shap_peer.py")
    done = subprocess.run(
        [str(python), "-W", "ignore", str(peer), kind, str(arrays)],
        check=True,
        capture_output=True,
        text=True,
    )
    theirs = np.array(json.loads(done.stdout.strip().splitlines()[-1]))
    spread = float(exact.std())
    return {
        "shap_to_exact": float(np.abs(theirs - exact).max()),
        "ours_to_exact": float(np.abs(ours - exact).max()),
        "ours_to_shap": float(np.abs(ours - theirs).max()),
        "of_a_logged_one_to_shap": float(np.abs(draws[0] - theirs).max()),
        "largest_standard_error": float(errors.max()),
        "standard_deviation_of_contributions": spread,
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one object")
    options = parser.parse_args(given)
    with tempfile.TemporaryDirectory(prefix="tailrace-benchmark-") as name:
        folder = Path(name)
        python = folder / "environment" / "bin" / "python"
        say("installing shap in an environment of its own")
        for command in (
            ["venv", "--quiet", "--python", sys.executable, str(folder / "environment")],
            ["pip", "install", "--quiet", "--python", str(python), *SHAP],
        ):
            subprocess.run([sys.executable, "-m", "uv", *command], check=True)
        by_kind = {kind: compare(kind, folder, python) for kind in MODELS}
    if options.json:
        print(json.dumps(by_kind))
    else:
        print(pd.DataFrame(by_kind).T.to_string())
    for kind, differences in by_kind.items():
        sampled = 6 * differences["largest_standard_error"]
        assert differences["shap_to_exact"] < 1e-4, f"{kind}: shap explains something else"
        assert differences["ours_to_shap"] < 1e-4 + sampled, f"{kind}: further off than its own error says"


if __name__ == "__main__":
    main()
