"""The ONNX model in what users have: a file, with its data beside it or not, or an MLflow model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tailrace.errors import TailraceError
from tailrace.models.errors import first_line
from tailrace.models.formats.foreign import refuse_file, refuse_folder


def onnx_bytes(path: Path) -> bytes:
    """The model as one file that stands alone. Nothing but protobuf and YAML is parsed, and nothing unpickled.

    Raises:
        TailraceError: there is no ONNX model in it; says what to do instead.
    """
    if path.is_dir():
        path = _mlflow_model(path)
    refuse_file(path)
    import onnx

    try:
        model = onnx.load(str(path))  # with the data that it keeps in files beside it, and in none elsewhere
    except Exception as error:  # the parser's exceptions have no common type
        raise TailraceError(
            f"{path} is not an ONNX model: {first_line(error)}. Export the model to ONNX where it was made; an "
            "estimator is published from Python: tailrace.publish(estimator, X, y, model=...)"
        ) from None
    return path.read_bytes() if _is_alone(path) else _in_one(model)


def _mlflow_model(folder: Path) -> Path:
    """The file of the ONNX flavour that the folder's ``MLmodel`` names."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    refuse_folder(folder)
    try:
        described: Any = YAML(typ="safe", pure=True).load((folder / "MLmodel").read_text())
    except FileNotFoundError:
        below = sorted(path.parent for path in folder.glob("*/MLmodel"))
        raise TailraceError(
            f"{folder} has no file MLmodel, so it is no MLflow model directory"
            + (f"; {' and '.join(map(str, below))} is" if below else "")
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise TailraceError(f"{folder / 'MLmodel'} cannot be read: {error}") from None
    flavors = described.get("flavors") if isinstance(described, dict) else None
    flavors = flavors if isinstance(flavors, dict) else {}
    flavor = flavors.get("onnx")
    if not isinstance(flavor, dict):
        load = next((f for f in flavors if f != "python_function"), "pyfunc")
        raise TailraceError(
            f"{folder} has no ONNX flavour, only {', '.join(map(str, flavors)) or 'none'}, and what those load may be "
            f"pickles, which run code. Load it yourself, where you trust it (mlflow.{load}.load_model), and call "
            "tailrace.publish(estimator, X, y, model=...); or log it with mlflow.onnx.log_model"
        )
    file = folder / str(flavor.get("data") or "model.onnx")
    if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
        named = f"{folder / 'MLmodel'} names the model {flavor.get('data')!r}"
        raise TailraceError(f"{named}, not a file in the folder")
    return file


def _is_alone(path: Path) -> bool:
    import onnx
    from onnx.external_data_helper import uses_external_data

    bare = onnx.load(str(path), load_external_data=False)
    return not any(uses_external_data(tensor) for tensor in bare.graph.initializer)


def _in_one(model: Any) -> bytes:
    """Loading has put the data where it belongs; the notes of where it was are cleared."""
    import onnx

    for tensor in model.graph.initializer:
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
    data: bytes = model.SerializeToString(deterministic=True)
    return data
