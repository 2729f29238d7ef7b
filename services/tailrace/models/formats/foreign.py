"""What people have that cannot be published as it is, and the way to publish it all the same. None of it is loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from tailrace.errors import TailraceError

PICKLE = (
    "a pickled model runs code when it is loaded, so none is published. Load it yourself, where you trust it, and call "
    "tailrace.publish(estimator, X, y, model=...), which carries it as ONNX or skops; or export it to ONNX and use "
    "`tailrace publish model.onnx`"
)
_GIVES = "gives what `tailrace publish model.onnx` takes"
_CALL = "call tailrace.publish(estimator, X, y, model=...)"
_EXPORT = "export the model to ONNX where it was made, and use `tailrace publish model.onnx`"
_TORCH = f"torch.onnx.export(model, example, 'model.onnx') {_GIVES}"
_TORCH_FILE = (
    "PyTorch's files hold pickles, which run code when they are loaded. Load it yourself, where you trust it: "
    + _TORCH
)
_KERAS = f"model.export('model.onnx', format='onnx') in Keras 3, or tf2onnx, {_GIVES}"
_SAVED_MODEL = f"`python -m tf2onnx.convert --saved-model FOLDER --output model.onnx` {_GIVES}"
_XGBOOST = f"load it into xgboost's XGBClassifier or XGBRegressor (load_model), and {_CALL}"
_LIGHTGBM = (
    f"onnxmltools.convert_lightgbm {_GIVES}; or fit LightGBM's LGBMClassifier or LGBMRegressor, and {_CALL}"
)
_CATBOOST = f"model.save_model('model.onnx', format='onnx') {_GIVES}"
_TRANSFORMERS = "`optimum-cli export onnx` gives ONNX; it has to take the contract's features"

_FILES = {
    **dict.fromkeys((".pt", ".pth", ".pt2", ".ckpt", ".mar", ".safetensors"), _TORCH_FILE),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), _KERAS),
    **dict.fromkeys((".ubj", ".json", ".bst", ".xgb"), _XGBOOST),
    **dict.fromkeys((".txt", ".lgb"), _LIGHTGBM),
    **dict.fromkeys((".pmml", ".tflite", ".mlmodel", ".rds", ".rda", ".mojo"), _EXPORT),
    ".pb": _SAVED_MODEL,
    ".cbm": _CATBOOST,
    ".skops": f"load it, and {_CALL}",
}
_LIBRARIES = {
    "torch": _TORCH,
    "keras": _KERAS,
    "tensorflow": _KERAS,
    "xgboost": _XGBOOST,
    "lightgbm": _LIGHTGBM,
    "catboost": _CATBOOST,
    "transformers": _TRANSFORMERS,
    "onnx": "write it to a file and use `tailrace publish model.onnx`",
    "onnxruntime": "use `tailrace publish model.onnx` with the file that it was opened from",
    "mlflow": "call tailrace.publish with the model inside (mlflow.sklearn.load_model, mlflow.xgboost.load_model, ...)",
    "statsmodels": "fit the same model in scikit-learn, or write its coefficients as ONNX",
}
# Their estimators are converted (models/formats/onnx/boosters.py).
_CARRIED = {"xgboost", "lightgbm"}
_PICKLES = {".pkl", ".pickle", ".joblib", ".p", ".cloudpickle", ".dill"}


def refuse_file(path: Path) -> None:
    """Raises TailraceError where a file is a pickle, whatever its name is, or of a format that has another way."""
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise TailraceError(f"{path.name}: {PICKLE}")
    if suffix in _FILES:
        raise TailraceError(f"{path.name} is not ONNX: {_FILES[suffix]}")
    if (advice := _pickle(path)) is not None:
        raise TailraceError(f"{path.name}: {advice}")


def refuse_folder(folder: Path) -> None:
    """Raises TailraceError where a folder is of a format that has another way."""
    if (folder / "saved_model.pb").exists():
        raise TailraceError(f"{folder} is TensorFlow's: {_SAVED_MODEL}")
    if (folder / "config.json").exists() and not (folder / "MLmodel").exists():
        raise TailraceError(f"{folder} looks like one of Hugging Face's: {_TRANSFORMERS}")


def refuse_object(estimator: Any) -> None:
    """Raises TailraceError where it is no estimator of scikit-learn's kind, and says what to do with it instead."""
    if isinstance(estimator, (bytes, bytearray, str)) or hasattr(estimator, "__fspath__"):
        raise TailraceError(PICKLE)
    kind = type(estimator)
    libraries = [parent.__module__.partition(".")[0] for parent in kind.__mro__]
    way = next((_LIBRARIES[library] for library in libraries if library in _LIBRARIES), None)
    is_estimator = hasattr(estimator, "get_params") and not isinstance(estimator, type)
    if is_estimator and (way is None or _CARRIED & set(libraries)):
        return
    raise TailraceError(f"{kind.__name__} is not a scikit-learn estimator: {way or _EXPORT}")


def _pickle(path: Path) -> str | None:
    """What to do with a file that is a pickle by its first bytes (protocols 2 to 5), or PyTorch's archive of one."""
    with path.open("rb") as file:
        head = file.read(2)
    if head[:1] == b"\x80" and head[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return PICKLE
    if head != b"PK" or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        return _KERAS
    return _TORCH_FILE if any(name.endswith(".pkl") for name in names) else None
