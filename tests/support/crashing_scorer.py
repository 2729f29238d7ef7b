"""A scorer in which one version of a model is a native crash: ``python -m tests.support.crashing_scorer VERSION``.

The version passes its checks, as packages do before they are run here, and kills the process by a segmentation
fault whenever it is asked.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import Any

from tailrace.models.columns import Array, Columns
from tailrace.models.formats.load import LoadedModel
from tailrace.scorer import app


class Crashes:
    def run(self, columns: Columns, rows: int) -> Array:
        ctypes.string_at(0)
        raise AssertionError("it lives on")


def main(version: int) -> None:
    opened = app.open_package

    def open_package(record: Mapping[str, Any], *args: Any, **kwargs: Any) -> LoadedModel:
        model = opened(record, *args, **kwargs)
        if record["version"] != version:
            return model
        return LoadedModel(model.manifest, Crashes(), model.reference)

    app.open_package = open_package  # type: ignore[assignment]
    app.main()


if __name__ == "__main__":
    main(int(sys.argv[1]))
