"""evidently's data drift on a table, timed: run by benchmarks/drift.py in an environment that has evidently.

Reads a Parquet file of the reference and one of windows (column ``window``), prints the seconds of each window.
"""

from __future__ import annotations

import json
import sys
import time

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset


def main(reference_file: str, windows_file: str) -> None:
    reference, windows = pd.read_parquet(reference_file), pd.read_parquet(windows_file)
    numbers = [name for name in reference if reference[name].dtype.kind == "f"]
    categories = [name for name in reference if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    trained = Dataset.from_pandas(reference, definition)
    report = Report([DataDriftPreset(num_method="ks", cat_method="chisquare")])
    seconds = []
    for _, window in windows.groupby("window"):
        current = Dataset.from_pandas(window.drop(columns="window").reset_index(drop=True), definition)
        started = time.perf_counter()
        report.run(current, trained).dict()
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
