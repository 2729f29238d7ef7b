"""Trains a model with scikit-learn and publishes it as the next version of `parcels`.

Run it where `tailrace up` runs, after `tailrace apply examples/parcels.yaml`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tailrace

FEATURES = ["distance", "weight", "express"]


def past_parcels(rows: int = 2_000, seed: int = 7) -> pd.DataFrame:
    """What your warehouse would know: parcels in the order in which they were sent, and which arrived late."""
    draw = np.random.default_rng(seed)
    parcels = pd.DataFrame(
        {
            "distance": draw.gamma(2.0, 200.0, rows),
            "weight": draw.gamma(2.0, 3.0, rows),
            "express": draw.random(rows) < 0.3,
        }
    )
    risk = parcels.distance / 200 + parcels.weight / 6 - 3 * parcels.express - 2.5
    parcels["late"] = draw.random(rows) < 1 / (1 + np.exp(-risk))
    return parcels


def main() -> None:
    parcels = past_parcels()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    # Fitted on the first four fifths of the rows, judged on the last one, carried as data and signed.
    published = tailrace.publish(pipeline, parcels[FEATURES], parcels.late, model="parcels")
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in sorted(published.metrics.items()))
    print(f"published {published.model} {published.version}: {metrics}")


if __name__ == "__main__":
    main()
