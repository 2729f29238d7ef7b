"""Explanations by shap: run by benchmarks/explanations.py in an environment that has shap.

Fits the model named on the rows of a file, explains those wanted against the background, prints the contributions.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import shap
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

MODELS = {
    "logistic": LogisticRegression(),
    "linear": LinearRegression(),
    "gradient_boosting": GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=0),
    "random_forest": RandomForestRegressor(n_estimators=30, max_depth=6, random_state=0),
}


def main(kind: str, file: str) -> None:
    arrays = np.load(file)
    model = MODELS[kind].fit(arrays["x"], arrays["y"])
    background = arrays["background"]
    if kind in ("logistic", "linear"):
        explainer = shap.LinearExplainer(
            model, shap.maskers.Independent(background, max_samples=len(background))
        )
    else:
        explainer = shap.TreeExplainer(
            model, background, feature_perturbation="interventional", model_output="raw"
        )
    print(json.dumps(np.asarray(explainer.shap_values(arrays["wanted"])).tolist()))


if __name__ == "__main__":
    main(*sys.argv[1:])
