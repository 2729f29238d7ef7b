"""Where the schemas, topic files and migrations are: in the wheel, or at the top of a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_dir(*parts: str) -> Path:
    """The folder of shipped data, e.g. ``data_dir("schemas", "avro")``.

    An installed wheel carries it inside the package; an editable install reads it from the checkout.
    """
    installed = _PACKAGE / "_data"
    root = installed if installed.is_dir() else _PACKAGE.parents[1]
    return root.joinpath(*parts)
